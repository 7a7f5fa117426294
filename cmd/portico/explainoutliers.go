package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/outlier"
)

const (
	// outliersTimeout is how long a svcproxy on the same node may take to answer.
	outliersTimeout = time.Second
	// maxOutliersBytes is more than all that it remembers.
	maxOutliersBytes = 4 << 20
)

// askOutliers asks the svcproxy that runs on this node which endpoints it skips: it alone knows.
func askOutliers(ctx context.Context, x *svcproxy.Explainer, admin address, node string) error {
	if admin == "" {
		return nil
	}
	view, err := getOutliers(ctx, admin)
	switch {
	case err != nil:
		return err
	case view.Node != node:
		return fmt.Errorf("who answers at %s is node %s", admin, view.Node)
	}
	var all []outlier.Failing
	for _, o := range view.Outliers {
		to, err := netip.ParseAddrPort(o.Endpoint)
		if err != nil {
			return fmt.Errorf("%s says: %w", admin, err)
		}
		all = append(all, outlier.Failing{Endpoint: outlier.Endpoint{Port: o.Port, Addr: to}, Since: o.Since, Until: o.Until, Why: o.Why})
	}
	x.Failing(all, view.MaxEjectionPercent)
	return nil
}

func getOutliers(ctx context.Context, admin address) (view outliersView, err error) {
	ctx, cancel := context.WithTimeout(ctx, outliersTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin.String()+"/api/v1/outliers", nil)
	if err != nil {
		return view, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	response, err := client.Do(request)
	if err != nil {
		return view, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return view, fmt.Errorf("%s answers %s", admin, response.Status)
	}
	return view, json.NewDecoder(io.LimitReader(response.Body, maxOutliersBytes)).Decode(&view)
}
