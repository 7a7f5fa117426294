package handover

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
	"go.uber.org/zap"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// What somebody else takes away is there again, and what this program itself writes is no damage.
func TestKeep(t *testing.T) {
	lab := netlab.New(t, 0)
	here, near := lab.Nodes[0], lab.Nodes[1]
	table := newTable(t, here)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		table.Keep(ctx, zap.NewNop())
	}()
	t.Cleanup(func() { cancel(); <-done })
	vip4, vip6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00:0:2::1")
	want := map[netip.Addr]netip.Addr{vip4: near.IPv4}
	if err := table.Set(want); err != nil {
		t.Fatal(err)
	}
	want = map[netip.Addr]netip.Addr{vip4: near.IPv4, vip6: near.IPv6}
	if err := table.Set(want); err != nil {
		t.Fatal(err)
	}
	var other *nftables.Conn
	var err error
	here.Do(t, func() { other, err = nftables.New(nftables.AsLasting()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.CloseLasting() })
	for i, damage := range []func(){
		other.FlushRuleset,
		func() { other.DelTable(&nftables.Table{Family: nftables.TableFamilyIPv6, Name: TableName}) },
		func() {
			other.FlushChain(&nftables.Chain{Table: &nftables.Table{Family: nftables.TableFamilyIPv4, Name: TableName}, Name: "strangers"})
		},
	} {
		damage()
		if err := other.Flush(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); ; {
			counts, err := table.Counts()
			if err != nil {
				t.Fatal(err)
			}
			if counts.Repairs == uint64(i+1) {
				break
			}
			if counts.Repairs > uint64(i+1) || time.Now().After(deadline) {
				t.Fatalf("damage %d: %+v", i, counts)
			}
		}
		if got := inKernel(t, table); !maps.Equal(got, want) {
			t.Errorf("damage %d: %v in the kernel, want %v", i, got, want)
		}
		rules, err := other.GetRules(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: TableName}, &nftables.Chain{Name: "strangers"})
		if err != nil || len(rules) != len(families[0].strangers(&nftables.Set{}, &nftables.Set{}, MaxRing)) {
			t.Errorf("damage %d: %d rules, %v", i, len(rules), err)
		}
	}
	// Where nothing is wanted, nothing is made.
	if err := table.Set(nil); err != nil {
		t.Fatal(err)
	}
	if err := table.repair(); err != nil || len(inKernel(t, table)) > 0 {
		t.Errorf("%v in the kernel, %v", inKernel(t, table), err)
	}
}

// What this program itself writes is no damage, and tables of others are their business.
func TestDamage(t *testing.T) {
	lab := netlab.New(t, 0)
	here, near := lab.Nodes[0], lab.Nodes[1]
	table := newTable(t, here)
	var other *nftables.Conn
	var err error
	here.Do(t, func() { other, err = nftables.New(nftables.AsLasting()) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.CloseLasting() })
	vip := netip.MustParseAddr("192.0.2.1")
	ours := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: TableName}
	for _, step := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"ours", func() error { return table.Set(map[netip.Addr]netip.Addr{vip: near.IPv4}) }, false},
		{"more of ours", func() error { return table.Set(map[netip.Addr]netip.Addr{vip: {}, vip.Next(): near.IPv4}) }, false},
		{"others' table", func() error {
			other.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "somebody"})
			return other.Flush()
		}, false},
		{"of another family", func() error {
			other.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: TableName})
			return other.Flush()
		}, false},
		{"an element", func() error {
			set := &nftables.Set{Table: ours, Name: "moved"}
			return errors.Join(other.SetDeleteElements(set, []nftables.SetElement{{Key: vip.AsSlice()}}), other.Flush())
		}, true},
		{"a chain", func() error {
			other.FlushChain(&nftables.Chain{Table: ours, Name: "strangers"})
			return other.Flush()
		}, true},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		wait := netlab.Silence
		if step.want {
			wait = 20 * time.Second
		}
		if err := table.events.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		if got := table.damaged(); got != step.want {
			t.Errorf("%s: %v", step.name, got)
		}
		table.deafen()
	}
}
