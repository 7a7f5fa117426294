package svcproxy

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// explains checks what Explain says of a packet against what a case of TestPackets expects of it,
// which is then checked with the packet itself; and that the kernel's elements say the same.
func (w *world) explains(t *testing.T, from *netlab.Host, network string, to netip.AddrPort, want []string) error {
	t.Helper()
	e := w.explain(t, from, network, to)
	w.remembered = ""
	if !e.Kernel.Agrees {
		return fmt.Errorf("explain: the kernel differs: %q", e.Kernel.Differences)
	}
	if err := e.agreesWith(w, from, want); err != nil {
		var text strings.Builder
		_ = e.Write(&text)
		return fmt.Errorf("explain: %w:\n%s", err, text.String())
	}
	return nil
}

// explain asks the node that a host's packet comes to; and the other one if that is where it goes.
func (w *world) explain(t *testing.T, from *netlab.Host, network string, to netip.AddrPort) *Explanation {
	t.Helper()
	at := 0
	if number, ok := strings.CutPrefix(from.Name, "pod"); ok {
		at = int(number[0] - '0')
	} else if from == w.Nodes[1] || from == w.Client && to.Addr() == w.Nodes[1].Addr(w.ipv6) {
		at = 1
	}
	p := Packet{From: from.Addr(w.ipv6), To: to, Protocol: corev1.Protocol(strings.ToUpper(network))}
	if to.Addr().IsLoopback() {
		p.From = to.Addr()
	}
	e := w.explainAt(t, at, p)
	if e.Verdict == PassedOn && to.Addr() == w.Nodes[1-at].Addr(w.ipv6) {
		e = w.explainAt(t, 1-at, p)
	}
	return e
}

func (w *world) explainAt(t *testing.T, at int, p Packet) *Explanation {
	t.Helper()
	n := &w.nodes[at]
	lan := w.Nodes[at]
	addresses := []netip.Addr{
		lan.IPv4, lan.IPv6,
		netip.AddrFrom4([4]byte{10, 180, byte(at), 1}), netip.MustParseAddr(fmt.Sprintf("fd00:180:%d::1", at)),
	}
	if w.relayed {
		return w.explainRelayed(t, at, p, addresses)
	}
	x := newExplainer(n.compiler, w.network, addresses)
	e := x.Explain(p)
	if n.snapshot == nil {
		var err error
		lan.Do(t, func() { n.snapshot, err = nft.Look() })
		if err != nil {
			t.Fatal(err)
		}
	}
	x.Compare(e, n.snapshot)
	return e
}

func (w *world) explainRelayed(t *testing.T, at int, p Packet, addresses []netip.Addr) *Explanation {
	t.Helper()
	if at == 0 {
		addresses = slices.AppendSeq(addresses, maps.Keys(w.given))
	}
	x := newExplainer(w.nodes[at].compiler, w.network, addresses)
	x.Userspace = true
	e := x.Explain(p)
	live, err := w.planes[at].Look()
	if err != nil {
		t.Fatal(err)
	}
	x.Compare(e, live)
	return e
}

func (e *Explanation) agreesWith(w *world, from *netlab.Host, want []string) error {
	own := e.Packet.To.Addr().IsLoopback() || w.given[e.Packet.To.Addr()]
	for _, n := range w.Nodes {
		own = own || n.Addr(w.ipv6) == e.Packet.To.Addr()
	}
	switch want[0] {
	case "refused":
		if e.Verdict != Rejected && (e.Verdict != PassedOn || !own) {
			return errors.New("refused")
		}
		return nil
	case "silent":
		if e.Verdict != Dropped && (e.Verdict != PassedOn || own) {
			return errors.New("silent")
		}
		return nil
	}
	if e.Verdict != Delivered {
		return errors.New("delivered")
	}
	var servers []string
	for _, end := range e.Endpoints {
		if !end.Used || e.Kernel.Remembered != "" && e.Kernel.Remembered != end.Address {
			continue
		}
		addr := netip.MustParseAddrPort(end.Address).Addr()
		for name, h := range w.hosts() {
			if h.Addr(w.ipv6) == addr {
				servers = append(servers, name)
			}
		}
		// Who is on a node has its address anyway.
		if as := asOf(want); as != "anybody" && !strings.HasPrefix(from.Name, "node") && end.Masqueraded != (as != "") {
			return fmt.Errorf("masqueraded %v, but as %q", end.Masqueraded, as)
		}
	}
	expected := strings.Split(want[0], ",")
	slices.Sort(expected)
	slices.Sort(servers)
	// What is read from the kernel is older than the case's packets; what userspace remembers is not.
	fresh := w.relayed && e.Kernel.Remembered != "" && len(servers) == 1 && slices.Contains(expected, servers[0])
	if !fresh && !slices.Equal(servers, expected) {
		return fmt.Errorf("servers are %v", servers)
	}
	if fresh {
		w.remembered = servers[0]
	}
	if always := want[len(want)-1] == "always"; always != (e.Affinity[:4] != "none") {
		return fmt.Errorf("affinity %s", e.Affinity)
	}
	return nil
}

func asOf(want []string) string {
	if len(want) > 2 && want[1] == "as" {
		return want[2]
	}
	return ""
}

// What somebody else did to the kernel is found by name, and the explanation says what the kernel
// would do.
func TestExplainFindsDamage(t *testing.T) {
	for _, c := range []struct {
		damage string
		want   []string
	}{
		{"delete element inet portico-a services4 { 172.30.0.1 . tcp . 80 }", []string{"it would reject it: cluster-ips4 [172.30.0.1]"}},
		{"delete element inet portico-a backends4 { 172.30.0.1 . tcp . 80 }", []string{"missing: backends4 [172.30.0.1 . tcp . 80]", "it would pass it on"}},
		{"flush map inet portico-a endpoints4", []string{"missing: endpoints4 [", "it would drop it"}},
		{"flush map inet portico-a shapes4", []string{"missing: shapes4 [", "it would drop it"}},
		{"flush map inet portico-a translations4", []string{"missing: translations4 [ClusterIP]", "it would pass it on"}},
		{"flush set inet portico-a unmasqueraded4", []string{"it would masquerade: true, wanted: false"}},
		{"flush chain inet portico-a decide4", []string{"the rules of table inet portico-a are not what they should be: somebody has changed them"}},
		{"delete table inet portico-a", []string{"it has no table of Portico's"}},
		{"flush ruleset", []string{"it has no table of Portico's"}},
	} {
		t.Run(c.damage, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, false, "cluster-cidr $pods")
			w.putServices(t, w.expand("metadata: {name: web}\nspec: {clusterIP: $vip1, ports: [{port: 80}]}"))
			w.putEndpoints(t, "web 8080 pod0-0 pod1-0")
			w.sync(t)
			to := netip.MustParseAddrPort("172.30.0.1:80")
			if e := w.explain(t, w.Pods[0][1], "tcp", to); !e.Kernel.Agrees {
				t.Fatal(e.Kernel)
			}
			var out []byte
			var err error
			w.Nodes[0].Do(t, func() { out, err = exec.Command("nft", c.damage).CombinedOutput() })
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			w.nodes[0].snapshot = nil
			e := w.explain(t, w.Pods[0][1], "tcp", to)
			if e.Verdict != Delivered || e.Kernel.Agrees || !e.Kernel.Compared {
				t.Errorf("%+v", e)
			}
			all := strings.Join(e.Kernel.Differences, "\n")
			for _, want := range c.want {
				if !strings.Contains(all, want) {
					t.Errorf("want %q in\n%s", want, all)
				}
			}
		})
	}
}
