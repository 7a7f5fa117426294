package svcproxy

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"
)

// healthServers answer the healthCheckNodePort of Services: whether an external load balancer
// should send to this node. Body, headers and codes are those of kube-proxy, because load
// balancers read them.
type healthServers struct {
	addresses []string // where to listen, without a port
	healthy   func() bool
	taken     func(namespace, name string, port uint16, err error)
	byService map[string]*healthServer
}

type healthServer struct {
	port   uint16
	state  atomic.Pointer[healthState]
	server *http.Server
}

type healthState struct {
	namespace, name string
	endpoints       int
}

func newHealthServers(ranges []netip.Prefix, healthy func() bool, taken func(namespace, name string, port uint16, err error)) *healthServers {
	h := &healthServers{healthy: healthy, taken: taken, byService: map[string]*healthServer{}}
	for _, r := range ranges {
		if r.IsSingleIP() {
			h.addresses = append(h.addresses, r.Addr().String())
		}
	}
	if len(h.addresses) == 0 {
		h.addresses = []string{""}
	}
	return h
}

func (h *healthServers) apply(d Delta) {
	for _, key := range d.Gone {
		h.set(key, nil)
	}
	for _, s := range d.Put {
		h.set(s.Key(), s)
	}
}

// set starts, changes or ends the server of a Service.
func (h *healthServers) set(key string, s *Service) {
	old := h.byService[key]
	if s == nil || s.HealthCheck == nil || old != nil && old.port != s.HealthCheck.Port {
		if old != nil {
			_ = old.server.Close()
			delete(h.byService, key)
			old = nil
		}
		if s == nil || s.HealthCheck == nil {
			return
		}
	}
	state := &healthState{s.Namespace, s.Name, s.HealthCheck.LocalEndpoints}
	if old != nil {
		old.state.Store(state)
		return
	}
	if started := h.start(s.HealthCheck.Port, state); started != nil {
		h.byService[key] = started
	}
}

func (h *healthServers) start(port uint16, state *healthState) *healthServer {
	hs := &healthServer{port: port}
	hs.state.Store(state)
	hs.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hs.state.Load().answer(w, h.healthy())
	}), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 8 << 10}
	listening := false
	for _, address := range h.addresses {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
		if err != nil {
			h.taken(state.namespace, state.name, port, err)
			continue
		}
		listening = true
		go func() { _ = hs.server.Serve(l) }()
	}
	if !listening {
		return nil // the next change of the Service tries again
	}
	return hs
}

func (s *healthState) answer(w http.ResponseWriter, healthy bool) {
	var answer healthAnswer
	answer.Service.Namespace, answer.Service.Name = s.namespace, s.name
	answer.LocalEndpoints, answer.ServiceProxyHealthy = s.endpoints, healthy
	body, err := json.MarshalIndent(answer, "", "\t")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(s.endpoints))
	if s.endpoints == 0 || !healthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(body)
}

// healthAnswer is the body, its fields in the order that kube-proxy has them in.
type healthAnswer struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int  `json:"localEndpoints"`
	ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
}

func (h *healthServers) close() {
	for _, s := range h.byService {
		_ = s.server.Close()
	}
}
