package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/outlier"
)

const (
	// defaultAdmin is where a svcproxy listens that is not told otherwise: at a port that nothing usual
	// on a node has, kube-proxy (10249, 10256) neither.
	defaultAdmin = "127.0.0.1:10276"
	// outliersTimeout is how long one on the same node may take to answer.
	outliersTimeout = time.Second
)

// runsHere tells whether the svcproxy on this host is that of a node, whatever the host is called.
func runsHere(ctx context.Context, node string) bool {
	var view outliersView
	err := askAdmin(ctx, "http://"+defaultAdmin, "/api/v1/outliers", outliersTimeout, &view)
	return err == nil && view.Node == node
}

// askOutliers asks the svcproxy that runs on this node which endpoints it skips: it alone knows. One
// that listens elsewhere can be asked for the whole answer, with --admin.
func askOutliers(ctx context.Context, x *svcproxy.Explainer, node string) error {
	var view outliersView
	err := askAdmin(ctx, "http://"+defaultAdmin, "/api/v1/outliers", outliersTimeout, &view)
	switch {
	case err != nil:
		return err
	case view.Node != node:
		return fmt.Errorf("who answers at %s is node %s", defaultAdmin, view.Node)
	}
	var all []outlier.Failing
	for _, o := range view.Outliers {
		to, err := netip.ParseAddrPort(o.Endpoint)
		if err != nil {
			return fmt.Errorf("%s says: %w", defaultAdmin, err)
		}
		all = append(all, outlier.Failing{Endpoint: outlier.Endpoint{Port: o.Port, Addr: to}, Since: o.Since, Until: o.Until, Why: o.Why})
	}
	x.Failing(all, view.MaxEjectionPercent)
	return nil
}
