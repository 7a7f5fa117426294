package nft

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// In a kernel without IPv6 the Services of IPv4 are served all the same: forwarded, rejected, repaired,
// adopted, and removed.
func TestKernelWithoutIPv6(t *testing.T) {
	l, all := servers(t)
	n := l.Nodes[0]
	cfg := Config{Socket: func(kernel Socket) Socket { return &netlab.WithoutInet{Socket: kernel} }}
	p := newPlane(t, n, cfg)
	if err := p.Apply(Changes{Complete: true, Put: all, Node: node}); err == nil {
		t.Fatal("this kernel takes a table for both families")
	}
	p = newPlane(t, n, cfg)
	if err := p.Probe(); err != nil {
		t.Fatal(err)
	}
	start(t, p)
	all = append(all, manyServices(10, 3)...)
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	if names, why := p.Unserved(); why == nil || !strings.Contains(why.Error(), "operation not supported") || !slices.Equal(names, []string{"six"}) {
		t.Errorf("Unserved is %v %v", names, why)
	}
	served := func() {
		t.Helper()
		for _, d := range toSteady {
			to := netip.MustParseAddrPort(d.Addr)
			if to.Addr().Is6() {
				continue
			}
			if _, err := l.Client.AskPatiently(t, d.Network, to); err != nil {
				t.Errorf("%s %s: %v", d.Network, d.Addr, err)
			}
		}
		for _, network := range []string{"tcp", "udp"} {
			if a, err := l.Client.AskPatiently(t, network, ap("172.30.0.1:9")); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("%s to an unknown port: %v %v", network, a, err)
			}
		}
	}
	served()
	if tables := foreign(t, n, "list", "tables"); strings.TrimSpace(tables) != "table ip portico-a" {
		t.Error(tables)
	}
	foreign(t, n, "list", "ruleset")
	if s := lookAt(t, n); s.Damage() != "" || len(s.elements) == 0 {
		t.Errorf("%q, %d elements", s.Damage(), len(s.elements))
	}
	if _, err := p.Counters(); err != nil {
		t.Error(err)
	}
	if _, err := p.Denied(); err != nil {
		t.Error(err)
	}
	want := read(t, p)
	before := p.Stats()
	foreign(t, n, "flush map ip portico-a backends4; flush chain ip portico-a decide4")
	until(t, func() bool { return p.Stats().Repairs > before.Repairs && whole(t, p) && len(read(t, p)) == len(want) })
	served()
	second := newPlane(t, n, cfg)
	if err := second.Probe(); err != nil {
		t.Fatal(err)
	}
	apply(t, second, Changes{Complete: true, Put: all, Node: node})
	if s := second.Stats(); s.Elements != 0 || s.Rebuilds != 0 {
		t.Errorf("a restart changed something: %+v", s)
	}
	// Who removes does not know which it was.
	other := newPlane(t, n, Config{})
	if err := other.Cleanup(); err != nil {
		t.Fatal(err)
	}
}

// A kernel that has failed is not one without IPv6.
func TestProbeThatFailsKeepsIPv6(t *testing.T) {
	faults := &netlab.Saboteur{Every: 1}
	p := newPlane(t, netlab.NewHost(t), Config{Socket: func(kernel Socket) Socket { return faults.Between(kernel) }})
	for range 3 { // before the kernel takes it, or by ENOMEM
		if err := p.Probe(); err == nil {
			t.Error("no error")
		}
	}
	faults.Stop()
	err := p.Probe()
	if _, why := p.Unserved(); err != nil || why != nil {
		t.Error(err, why)
	}
}

// until waits for what has to come, however busy the machine is.
func until(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that")
		}
	}
}
