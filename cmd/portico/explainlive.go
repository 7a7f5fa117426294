package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/svcproxy"
)

// explainHandler answers /api/v1/explain?from=ADDRESS&to=ADDRESS:PORT&protocol=TCP, one after the other:
// reading back a large data plane takes a second.
func explainHandler(c *svcproxy.Controller) http.HandlerFunc {
	var one sync.Mutex
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := packetOf(r.URL.Query())
		if err != nil {
			writeStatus(w, http.StatusBadRequest, err.Error())
			return
		}
		one.Lock()
		defer one.Unlock()
		e, err := c.Explain(r.Context(), p, hostAddresses())
		if err != nil {
			writeStatus(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, e)
	}
}

func packetOf(q url.Values) (p svcproxy.Packet, err error) {
	if p.From, err = netip.ParseAddr(q.Get("from")); err != nil {
		return p, fmt.Errorf("from: %w", err)
	}
	if p.To, err = netip.ParseAddrPort(q.Get("to")); err != nil {
		return p, fmt.Errorf("to: %w", err)
	}
	switch p.Protocol = corev1.Protocol(q.Get("protocol")); {
	case p.Protocol != corev1.ProtocolTCP && p.Protocol != corev1.ProtocolUDP && p.Protocol != corev1.ProtocolSCTP:
		return p, fmt.Errorf("protocol: %q is not TCP, UDP or SCTP", p.Protocol)
	case p.From.Is4() != p.To.Addr().Is4() || p.From.Zone() != "" || p.From.Is4In6() || p.To.Addr().Is4In6():
		return p, fmt.Errorf("from %s to %s: want two addresses of one IP family, without a zone", p.From, p.To)
	}
	return p, nil
}

const (
	// adminTimeout is for the whole answer, of which little is large.
	adminTimeout = 30 * time.Second
	maxAnswer    = 4 << 20
)

// explainLive asks a portico svcproxy that runs.
func explainLive(ctx context.Context, admin string, a asked) (*svcproxy.Explanation, error) {
	if a.fromPod.Name != "" || a.service.Name != "" {
		return nil, usagef("--admin: SRC and DST have to be addresses; portico svcproxy does not read Pods")
	}
	port, err := a.number()
	if err != nil {
		return nil, err
	}
	q := url.Values{"from": {a.from.String()}, "to": {netip.AddrPortFrom(a.to, port).String()}, "protocol": {string(a.protocol)}}
	var e svcproxy.Explanation
	if err := askAdmin(ctx, admin, "/api/v1/explain?"+q.Encode(), adminTimeout, &e); err != nil {
		return nil, fmt.Errorf("--admin %s: %w", admin, err)
	}
	return &e, nil
}

// askAdmin gets what a portico svcproxy answers at that URL.
func askAdmin(ctx context.Context, admin, path string, timeout time.Duration, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(admin, "/")+path, http.NoBody)
	if err != nil {
		return usageError{err}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // and no proxy
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300q", response.Status, body)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(body, answer)
}
