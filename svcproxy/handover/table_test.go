package handover

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// What is in the kernel is what was set last: whatever was there before, and by whomever.
func TestSet(t *testing.T) {
	lab := netlab.New(t, 0)
	here, near := lab.Nodes[0], lab.Nodes[1]
	open := func() (table *Table) {
		var err error
		here.Do(t, func() { table, err = New() })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(table.Close)
		return table
	}
	vip := func(n byte, ipv6 bool) netip.Addr {
		if ipv6 {
			return netip.AddrFrom16([16]byte{0xfd, 0, 0, 2, 15: n})
		}
		return netip.AddrFrom4([4]byte{192, 0, 2, n})
	}
	first := open()
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
		{"another process", open(), map[netip.Addr]netip.Addr{vip(9, true): near.IPv6}, map[netip.Addr]netip.Addr{vip(9, true): near.IPv6}},
		{"removed", open(), nil, nil},
	} {
		if err := step.table.Set(step.next); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff(step.want, inKernel(t, step.table), cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
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
