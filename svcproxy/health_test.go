package svcproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// healthLab is a node with two addresses of each family, and what serves healthCheckNodePorts there.
type healthLab struct {
	*netlab.Host
	*healthServers
	told []string
}

func newHealthLab(t *testing.T, ranges ...string) *healthLab {
	t.Helper()
	l := &healthLab{Host: netlab.New(t, 1).Nodes[0]}
	for _, a := range []string{"192.0.2.1/24", "198.51.100.1/24", "2001:db8:1::1/64", "2001:db8:2::1/64"} {
		l.Address(t, a)
	}
	var prefixes []netip.Prefix
	for _, r := range ranges {
		prefixes = append(prefixes, netip.MustParsePrefix(r))
	}
	l.healthServers = newHealthServers(prefixes, func() bool { return true }, func(_, name string, port uint16, _ error) {
		l.told = append(l.told, fmt.Sprintf("%s:%d", name, port))
	})
	t.Cleanup(l.close)
	return l
}

// put adds Services, or changes them.
func (l *healthLab) put(t *testing.T, services ...*Service) {
	t.Helper()
	l.Do(t, func() { l.apply(Delta{Put: services}) })
}

func (l *healthLab) look(t *testing.T) {
	t.Helper()
	l.Do(t, l.settle)
}

// listen takes an address away until it is closed.
func (l *healthLab) listen(t *testing.T, address string) net.Listener {
	t.Helper()
	var taken net.Listener
	var err error
	l.Do(t, func() { taken, err = net.Listen("tcp", address) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	return taken
}

// checked is of IP families with -1 endpoints not.
func checked(name string, port uint16, ipv4, ipv6 int) *Service {
	s := &Service{Namespace: "ns", Name: name, HealthCheck: &HealthCheck{Port: port, LocalEndpoints: map[bool]int{}}}
	for is6, n := range map[bool]int{false: ipv4, true: ipv6} {
		if n >= 0 {
			s.HealthCheck.LocalEndpoints[is6] = n
		}
	}
	return s
}

// says is the name of the Service and the number of endpoints that are answered at an address, or "refused".
func (l *healthLab) says(t *testing.T, address string) string {
	t.Helper()
	c, err := l.Dial(t, "tcp", netip.AddrPort{}, netip.MustParseAddrPort(address), 10*time.Second)
	if err != nil {
		return strings.SplitN(err.Error(), ":", 2)[0]
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "GET /any/path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	_, name, _ := strings.Cut(string(body), `"name": "`)
	name, _, _ = strings.Cut(name, `"`)
	return fmt.Sprintf("%d %s %s", response.StatusCode, name, response.Header.Get("X-Load-Balancing-Endpoint-Weight"))
}

func (l *healthLab) want(t *testing.T, all map[string]string) {
	t.Helper()
	for address, want := range all {
		if got := l.says(t, address); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

// Each family says what there is of it, and nothing if the Service is not of it.
func TestHealthCheckOfFamilies(t *testing.T) {
	l := newHealthLab(t)
	l.put(t, checked("a", 32001, 2, 0), checked("b", 32002, 1, -1))
	l.want(t, map[string]string{
		"192.0.2.1:32001": "200 a 2", "[2001:db8:1::1]:32001": "503 a 0",
		"192.0.2.1:32002": "200 b 1", "[2001:db8:1::1]:32002": "refused",
	})
	l.put(t, checked("a", 32001, -1, 3))
	l.want(t, map[string]string{"192.0.2.1:32001": "refused", "[2001:db8:2::1]:32001": "200 a 3"})
	// Ports that go from one Service to another in one step.
	l.put(t, checked("a", 32002, 1, 1), checked("b", 32001, 1, 1))
	l.want(t, map[string]string{"192.0.2.1:32002": "200 a 1", "192.0.2.1:32001": "200 b 1", "[2001:db8:2::1]:32001": "200 b 1"})
	l.Do(t, func() { l.apply(Delta{Gone: []string{"ns/a"}}) })
	l.want(t, map[string]string{"192.0.2.1:32002": "refused", "192.0.2.1:32001": "200 b 1"})
	if len(l.told) > 0 || !l.again.IsZero() {
		t.Errorf("told %v, again at %v", l.told, l.again)
	}
}

// --nodeport-addresses are ranges of the node's addresses, which may change; a family without any answers
// on all.
func TestHealthCheckAnswersOnNodePortAddresses(t *testing.T) {
	l := newHealthLab(t, "192.0.2.0/24", "203.0.113.0/24", "198.51.100.77/32")
	l.put(t, checked("a", 32001, 1, 1))
	l.want(t, map[string]string{
		"192.0.2.1:32001": "200 a 1", "198.51.100.1:32001": "refused", "127.0.0.1:32001": "refused",
		"[2001:db8:1::1]:32001": "200 a 1", "[2001:db8:2::1]:32001": "200 a 1",
	})
	if l.again.IsZero() {
		t.Fatal("it does not look for other addresses")
	}
	l.Address(t, "203.0.113.1/24")
	l.look(t)
	l.want(t, map[string]string{"192.0.2.1:32001": "200 a 1", "203.0.113.1:32001": "200 a 1", "198.51.100.1:32001": "refused"})
}

// What somebody else has is told once, and served when it is free; what can be is served meanwhile.
func TestHealthCheckNodePortThatIsTaken(t *testing.T) {
	l := newHealthLab(t, "192.0.2.0/24", "198.51.100.0/24")
	taken := l.listen(t, "192.0.2.1:32001")
	l.put(t, checked("a", 32001, 1, 1))
	l.put(t, checked("a", 32001, 2, 1))
	l.look(t)
	if !slices.Equal(l.told, []string{"a:32001"}) || l.again.IsZero() {
		t.Errorf("told %v, again at %v", l.told, l.again)
	}
	l.want(t, map[string]string{"198.51.100.1:32001": "200 a 2", "[2001:db8:1::1]:32001": "200 a 1"})
	_ = taken.Close()
	l.look(t)
	l.want(t, map[string]string{"192.0.2.1:32001": "200 a 2", "198.51.100.1:32001": "200 a 2"})
	if len(l.told) != 1 {
		t.Errorf("told %v", l.told)
	}
}

// The Controller tries again by itself, without any change.
func TestHealthCheckIsTriedAgain(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	store, told := manifests.NewStore(), make(chan uint16, 10)
	store.Put(newService("s", "172.30.0.1", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = "LoadBalancer", "Local", int32(port)
	}))
	store.Put(newSlice("s", "", "10.0.0.1"))
	store.Open()
	runController(t, Config{
		Store: store, Plane: idlePlane{}, Rules: Rules{NodeName: "n"},
		Network: Network{NodePortAddresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}},
		Observe: &Observer{HealthPortTaken: func(_ corev1.ObjectReference, port uint16, _ error) { told <- port }},
	})
	if got := receive(t, told); int(got) != port {
		t.Errorf("told of port %d, not %d", got, port)
	}
	_ = taken.Close()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	until(t, "it answers", func() bool {
		response, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.Header.Get("X-Load-Balancing-Endpoint-Weight") == "1"
	})
}

// idlePlane takes everything.
type idlePlane struct{ Plane }

func (idlePlane) Apply(Update) error { return nil }

func (idlePlane) Run(ctx context.Context) { <-ctx.Done() }

func (idlePlane) Problems() []manifests.Problem { return nil }
