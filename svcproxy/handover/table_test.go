package handover

import (
	"errors"
	"maps"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/nftables"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// What is in the kernel is what was set last: whatever was there before, and by whomever.
func TestSet(t *testing.T) {
	lab := netlab.New(t, 0)
	here, near := lab.Nodes[0], lab.Nodes[1]
	vip := func(n byte, ipv6 bool) netip.Addr {
		if ipv6 {
			return netip.AddrFrom16([16]byte{0xfd, 0, 0, 2, 15: n})
		}
		return netip.AddrFrom4([4]byte{192, 0, 2, n})
	}
	first := newTable(t, here)
	behindRouter := netip.MustParseAddr("10.180.1.10")
	for _, step := range []struct {
		name       string
		table      *Table
		next, want map[netip.Addr]netip.Addr
	}{
		{"nothing", first, nil, nil},
		{"one", first, map[netip.Addr]netip.Addr{vip(1, false): near.IPv4}, map[netip.Addr]netip.Addr{vip(1, false): near.IPv4}},
		{
			"both families", first,
			map[netip.Addr]netip.Addr{vip(1, false): near.IPv4, vip(1, true): near.IPv6},
			map[netip.Addr]netip.Addr{vip(1, false): near.IPv4, vip(1, true): near.IPv6},
		},
		{
			"nobody, of the other family, and not on the LAN", first,
			map[netip.Addr]netip.Addr{vip(1, false): {}, vip(2, false): near.IPv6, vip(3, false): behindRouter, vip(1, true): {}},
			map[netip.Addr]netip.Addr{vip(1, false): netip.IPv4Unspecified(), vip(2, false): netip.IPv4Unspecified(), vip(3, false): netip.IPv4Unspecified(), vip(1, true): netip.IPv6Unspecified()},
		},
		{"another process", newTable(t, here), map[netip.Addr]netip.Addr{vip(9, true): near.IPv6}, map[netip.Addr]netip.Addr{vip(9, true): near.IPv6}},
		{"removed", newTable(t, here), nil, nil},
	} {
		if err := step.table.Set(step.next); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.want, inKernel(t, step.table), cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
}

// More addresses than fit into one attribute, or into the socket's usual buffer: all of them come, and go.
func TestSetMany(t *testing.T) {
	lab := netlab.New(t, 0)
	here, near := lab.Nodes[0], lab.Nodes[1]
	table := newTable(t, here)
	many := func(from, to int) map[netip.Addr]netip.Addr {
		all := map[netip.Addr]netip.Addr{}
		for i := from; i < to; i++ {
			all[netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})] = near.IPv4
			all[netip.AddrFrom16([16]byte{0xfd, 0, 0, 2, 14: byte(i >> 8), 15: byte(i)})] = near.IPv6
		}
		return all
	}
	for _, want := range []map[netip.Addr]netip.Addr{many(0, 3000), many(2900, 5900), many(0, 1), nil} {
		if err := table.Set(want); err != nil {
			t.Fatal(err)
		}
		if got := inKernel(t, table); !maps.Equal(got, want) {
			t.Errorf("%d addresses in the kernel, or others; want %d", len(got), len(want))
		}
	}
}

// After an error nothing of what failed is left to fail again, or to be written with what comes next.
func TestSetAfterError(t *testing.T) {
	lab := netlab.New(t, 0)
	here, near := lab.Nodes[0], lab.Nodes[1]
	table := newTable(t, here)
	vip4, vip6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00:0:2::1")
	if err := table.Set(map[netip.Addr]netip.Addr{vip4: near.IPv4, vip6: near.IPv6}); err != nil {
		t.Fatal(err)
	}
	table.moved[1].Anonymous = true // such a set takes no elements
	want := map[netip.Addr]netip.Addr{vip4: {}, vip6.Next(): near.IPv6}
	var err error
	here.Do(t, func() { err = table.Set(want) }) // which begins anew
	if err != nil {
		t.Fatal(err)
	}
	want[vip4] = netip.IPv4Unspecified()
	if got := inKernel(t, table); !maps.Equal(got, want) {
		t.Errorf("%v in the kernel, want %v", got, want)
	}
}

// A Set that finds that somebody has taken the tables away makes them, and does not lose what it was told.
func TestSetAfterDamage(t *testing.T) {
	lab := netlab.New(t, 0)
	here, near := lab.Nodes[0], lab.Nodes[1]
	table := newTable(t, here)
	vip := netip.MustParseAddr("192.0.2.1")
	if err := table.Set(map[netip.Addr]netip.Addr{vip: near.IPv4}); err != nil {
		t.Fatal(err)
	}
	want := map[netip.Addr]netip.Addr{vip.Next(): near.IPv4}
	var err error
	here.Do(t, func() {
		var other *nftables.Conn
		if other, err = nftables.New(); err == nil {
			other.FlushRuleset()
			err = errors.Join(other.Flush(), table.Set(want))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := inKernel(t, table); !maps.Equal(got, want) {
		t.Errorf("%v in the kernel, want %v", got, want)
	}
}

func newTable(t *testing.T, in *netlab.Host) (table *Table) {
	t.Helper()
	var err error
	in.Do(t, func() { table, err = New(Config{}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(table.Close)
	return table
}

func inKernel(t *testing.T, table *Table) map[netip.Addr]netip.Addr {
	t.Helper()
	all := map[netip.Addr]netip.Addr{}
	for _, f := range families {
		tables, err := table.conn.ListTablesOfFamily(f.table)
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range tables {
			set, err := table.conn.GetSetByName(in, "moved")
			if err != nil {
				t.Fatal(err)
			}
			elements, err := table.conn.GetSetElements(set)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range elements {
				key, _ := netip.AddrFromSlice(e.Key)
				val, _ := netip.AddrFromSlice(e.Val)
				all[key] = val
			}
		}
	}
	return all
}
