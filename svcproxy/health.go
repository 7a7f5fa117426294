package svcproxy

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// HealthCheck is what the Service's healthCheckNodePort answers on this node: in each IP family what is
// to be said of that, as kube-proxy does, whose two families know nothing of each other.
type HealthCheck struct {
	Port uint16
	// LocalEndpoints are the numbers of distinct ready addresses on this node, by whether they are of
	// IPv6. Of a family that is not there nobody answers.
	LocalEndpoints map[bool]int
}

// healthServers answer the healthCheckNodePort of Services: whether an external load balancer
// should send to this node. Body, headers and codes are those of kube-proxy, because load
// balancers read them. They belong to one goroutine.
type healthServers struct {
	// ranges are of the node's addresses that answer; a family without any answers on all.
	ranges    []netip.Prefix
	healthy   func() bool
	taken     func(namespace, name string, port uint16, err error)
	byService map[healthKey]*healthServer
	// again is when to look at what could not be had, and for other addresses of the node; zero: never.
	again time.Time
}

// healthAgain is how long after that.
const healthAgain = 2 * time.Second

type healthKey struct {
	service string
	ipv6    bool
}

// healthServer is that of one Service in one family.
type healthServer struct {
	port   uint16
	state  atomic.Pointer[healthState]
	server *http.Server
	// sockets are where it listens, failed where it could not.
	sockets map[netip.Addr]net.Listener
	failed  map[netip.Addr]struct{}
}

type healthState struct {
	namespace, name string
	endpoints       int
}

func newHealthServers(ranges []netip.Prefix, healthy func() bool, taken func(namespace, name string, port uint16, err error)) *healthServers {
	return &healthServers{ranges: orEverywhere(ranges), healthy: healthy, taken: taken, byService: map[healthKey]*healthServer{}}
}

// apply closes what is not wanted any more first: another Service may want the port.
func (h *healthServers) apply(d Delta) {
	for _, key := range d.Gone {
		h.end(key, nil)
	}
	for _, s := range d.Put {
		h.end(s.Key(), s.HealthCheck)
	}
	for _, s := range d.Put {
		if s.HealthCheck == nil {
			continue
		}
		for ipv6, n := range s.HealthCheck.LocalEndpoints {
			h.set(healthKey{s.Key(), ipv6}, s.HealthCheck.Port, &healthState{s.Namespace, s.Name, n})
		}
	}
	if len(d.Gone)+len(d.Put) > 0 {
		h.settle()
	}
}

// end closes the servers of a Service that are not those wanted.
func (h *healthServers) end(service string, wanted *HealthCheck) {
	for _, ipv6 := range []bool{false, true} {
		key := healthKey{service, ipv6}
		s := h.byService[key]
		if s == nil {
			continue
		}
		if wanted != nil && wanted.Port == s.port {
			if _, ok := wanted.LocalEndpoints[ipv6]; ok {
				continue
			}
		}
		for _, l := range s.sockets {
			_ = l.Close() // at once: the server knows of it only when it serves it
		}
		_ = s.server.Close()
		delete(h.byService, key)
	}
}

// set makes a server, or changes what it says.
func (h *healthServers) set(key healthKey, port uint16, state *healthState) {
	s := h.byService[key]
	if s == nil {
		s = &healthServer{port: port, sockets: map[netip.Addr]net.Listener{}, failed: map[netip.Addr]struct{}{}}
		s.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			s.state.Load().answer(w, h.healthy())
		}), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10}
		h.byService[key] = s
	}
	s.state.Store(state)
}

// settle makes all servers listen where they should, and says when to do so again.
func (h *healthServers) settle() {
	h.again = time.Time{}
	if len(h.byService) == 0 {
		return
	}
	wanted, followed := h.addresses()
	for key, s := range h.byService {
		s.listen(wanted[key.ipv6], key.ipv6, h.taken)
		if followed || len(s.failed) > 0 {
			h.again = time.Now().Add(healthAgain)
		}
	}
}

// addresses are those to listen at, by whether they are of IPv6, and whether they may change.
func (h *healthServers) addresses() (wanted map[bool][]netip.Addr, followed bool) {
	wanted = map[bool][]netip.Addr{}
	for _, ipv6 := range []bool{false, true} {
		if slices.Contains(h.ranges, everywhere[ipv6]) {
			wanted[ipv6] = []netip.Addr{everywhere[ipv6].Addr()}
			continue
		}
		followed = true
		for _, a := range interfaceAddresses() {
			if a.Is6() == ipv6 && slices.ContainsFunc(h.ranges, func(r netip.Prefix) bool { return r.Contains(a) }) {
				wanted[ipv6] = append(wanted[ipv6], a)
			}
		}
	}
	return wanted, followed
}

// interfaceAddresses are those of this host; none if they cannot be read, and then it is tried again.
func interfaceAddresses() (all []netip.Addr) {
	found, _ := net.InterfaceAddrs()
	for _, a := range found {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all
}

// listen tells once of an address that cannot be had.
func (s *healthServer) listen(wanted []netip.Addr, ipv6 bool, taken func(namespace, name string, port uint16, err error)) {
	for a, l := range s.sockets {
		if !slices.Contains(wanted, a) {
			_ = l.Close()
			delete(s.sockets, a)
		}
	}
	network := "tcp4"
	if ipv6 {
		network = "tcp6"
	}
	before := s.failed
	s.failed = map[netip.Addr]struct{}{}
	for _, a := range wanted {
		if s.sockets[a] != nil {
			continue
		}
		l, err := (&net.ListenConfig{}).Listen(context.Background(), network, netip.AddrPortFrom(a, s.port).String())
		if err == nil {
			s.sockets[a] = l
			go func() { _ = s.server.Serve(l) }()
			continue
		}
		s.failed[a] = struct{}{}
		if _, told := before[a]; !told {
			state := s.state.Load()
			taken(state.namespace, state.name, s.port, err)
		}
	}
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
