package nft

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// What went nowhere is counted by why, whatever the IP family.
func TestReasons(t *testing.T) {
	l := netlab.New(t, 1)
	p := newPlane(t, l.Nodes[0], Config{})
	before, err := p.Reasons()
	if err != nil || len(before) != len(reasons) {
		t.Fatal(before, err)
	}
	service := func(name, vip string, kind Kind, restricted bool) *Service {
		a := netip.MustParseAddr(vip)
		return &Service{
			Name: name, Protocol: 6, IPv6: a.Is6(), ClusterIPs: []netip.Addr{a},
			Frontends: []Frontend{{Addr: a, Port: 80, Kind: kind, Restricted: restricted}},
		}
	}
	apply(t, p, Changes{Complete: true, Node: node, Put: []*Service{
		service("reject", "172.30.0.1", Reject, false), service("reject6", "fd00:30::1", Reject, false),
		service("drop", "172.30.0.2", Drop, false), service("absent", "172.30.0.3", ExternalAbsent, false),
		service("ranges", "172.30.0.4", External, true), service("ranges6", "fd00:30::4", External, true),
	}})
	for _, c := range []struct {
		to   string
		want error
	}{
		{"172.30.0.1:80", netlab.ErrRefused},
		{"[fd00:30::1]:80", netlab.ErrRefused},
		{"172.30.0.1:81", netlab.ErrRefused},
		{"172.30.0.2:80", netlab.ErrSilent},
		{"172.30.0.3:80", netlab.ErrSilent},
		{"172.30.0.4:80", netlab.ErrSilent},
		{"[fd00:30::4]:80", netlab.ErrSilent},
	} {
		if _, err := l.Client.Ask(t, "tcp", ap(c.to)); !errors.Is(err, c.want) {
			t.Fatalf("%s: %v", c.to, err)
		}
	}
	got, err := p.Reasons()
	if err != nil {
		t.Fatal(err)
	}
	// The client may repeat a packet that is dropped.
	for reason, want := range map[Reason]uint64{
		{"reject", "unknown-port"}: 1, {"drop", "policy"}: 1, {"drop", "no-local-endpoint"}: 1,
		{"drop", "source-ranges"}: 2, {"drop", "changed-meanwhile"}: 0, {"drop", "invalid-segment"}: 0,
	} {
		if n := got[reason]; n < want || want == 0 && n > 0 || reason.Verdict == "reject" && n != want {
			t.Errorf("%v: %d, want %d: %v", reason, n, want, got)
		}
	}
}

// Who is kept out by source ranges is counted for the Service, by the packets that built its element.
func TestDenied(t *testing.T) {
	l, all := servers(t)
	p := newPlane(t, l.Nodes[0], Config{})
	restricted := tcpService("10.180.0.10:8080")
	restricted.Frontends[0].Restricted, restricted.Sources = true, []netip.Prefix{netip.MustParsePrefix("10.180.0.0/16")}
	apply(t, p, Changes{Complete: true, Node: node, Put: append(all[1:], restricted)})
	if _, err := l.Client.Ask(t, "tcp", ap("172.30.0.1:80")); !errors.Is(err, netlab.ErrSilent) {
		t.Fatal(err)
	}
	if _, err := l.Pods[0][1].AskPatiently(t, "tcp", ap("172.30.0.1:80")); err != nil {
		t.Fatal(err)
	}
	got, err := p.Denied()
	if err != nil || len(got) != 1 || got["tcp"] == 0 {
		t.Error(got, err)
	}
	foreign(t, l.Nodes[0], "list", "ruleset") // it must not end in an assertion
	if err := p.Repair(); err != nil || p.Stats().Repairs > 0 {
		t.Errorf("packets' own elements are repaired: %v %+v", err, p.Stats())
	}
}
