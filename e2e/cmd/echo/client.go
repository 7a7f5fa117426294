package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// What a test wants to know of the world as it is inside of a Pod: its environment, what its
// resolver says, and who answers a URL.

// Lookup is what the Pod's resolver found out.
type Lookup struct {
	// Asked are the servers that were asked, as "udp 10.96.0.10:53".
	Asked   []string `json:"asked"`
	Answers []string `json:"answers"`
	Error   string   `json:"error,omitempty"`
}

const clientTimeout = 5 * time.Second

func environment(w http.ResponseWriter, _ *http.Request) {
	env := map[string]string{}
	for _, line := range os.Environ() {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	writeJSON(w, env)
}

// lookup is /lookup?type=host&name=web&network=tcp. Types are host, cname, srv, whose name is
// whole, and addr, whose name is an address.
func lookup(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), clientTimeout)
	defer cancel()
	q := r.URL.Query()
	s := resolver{network: q.Get("network")}
	answers, err := s.ask(ctx, q.Get("type"), q.Get("name"))
	slices.Sort(answers)
	result := Lookup{Asked: slices.Compact(slices.Sorted(slices.Values(s.asked))), Answers: answers}
	if err != nil {
		result.Error = err.Error()
	}
	writeJSON(w, result)
}

// resolver asks whom resolv.conf names, over one network only if that is set.
type resolver struct {
	network string

	mu    sync.Mutex
	asked []string
}

func (s *resolver) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if s.network != "" {
		network = s.network
	}
	s.mu.Lock()
	s.asked = append(s.asked, network+" "+address)
	s.mu.Unlock()
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

func (s *resolver) ask(ctx context.Context, kind, name string) (answers []string, err error) {
	r := &net.Resolver{PreferGo: true, Dial: s.dial}
	switch kind {
	case "host":
		return r.LookupHost(ctx, name)
	case "cname":
		answer, err := r.LookupCNAME(ctx, name)
		return []string{answer}, err
	case "addr":
		return r.LookupAddr(ctx, name)
	case "srv":
		_, all, err := r.LookupSRV(ctx, "", "", name)
		for _, a := range all {
			answers = append(answers, fmt.Sprintf("%d %s", a.Port, a.Target))
		}
		return answers, err
	}
	return nil, fmt.Errorf("no type %q; there are host, cname, srv and addr", kind)
}

// fetch is /fetch?url=http://web/: the answer is that of the URL, with a connection of its own.
// TLS trusts the cluster's authority, as a Pod's client does.
func fetch(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), clientTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL.Query().Get("url"), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: clusterAuthority()}}}
	res, err := client.Do(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = res.Body.Close() }()
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body)
}

func clusterAuthority() *x509.CertPool {
	pool := x509.NewCertPool()
	if b, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"); err == nil {
		pool.AppendCertsFromPEM(b)
	}
	return pool
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
