package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// manyServices gives n Services with so many endpoints each.
func manyServices(n, each int) []*Service {
	all := make([]*Service, n)
	for i := range all {
		all[i] = manyService(i, each, 0)
	}
	return all
}

// manyService is the ith of them; other makes its first endpoint another one.
func manyService(i, each, other int) *Service {
	s := &Service{
		Name: fmt.Sprintf("ns/service-%d/http", i), Protocol: 6,
		Frontends: []Frontend{{Addr: netip.AddrFrom4([4]byte{172, 31, byte(i >> 8), byte(i)}), Port: 80, Kind: ClusterIP}},
	}
	for j := range each {
		a := netip.AddrFrom4([4]byte{10, byte(100 + j), byte(i >> 8), byte(i)})
		if j == 0 {
			a = netip.AddrFrom4([4]byte{10, byte(50 + other), byte(i >> 8), byte(i)})
		}
		s.Cluster = append(s.Cluster, netip.AddrPortFrom(a, 8080))
	}
	return s
}

func TestScaleFigures(t *testing.T) {
	for _, size := range []struct{ services, endpoints int }{{20_000, 2}, {10_000, 10}} {
		t.Run(fmt.Sprintf("%dx%d", size.services, size.endpoints), func(t *testing.T) {
			h := netlab.NewHost(t)
			p := newPlane(t, h, Config{})
			all := manyServices(size.services, size.endpoints)
			start := time.Now()
			if err := p.Apply(Changes{Complete: true, Put: all, Node: &Node{}}); err != nil {
				t.Fatal(err)
			}
			t.Logf("cold start: %v", time.Since(start))
			start = time.Now()
			const switches = 100
			for i := range switches {
				if err := p.Apply(Changes{Put: []*Service{manyService(i, size.endpoints, 1)}}); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("switch of one endpoint: %v", time.Since(start)/switches)
			start = time.Now()
			if err := p.Repair(); err != nil {
				t.Fatal(err)
			}
			t.Logf("read and compare: %v", time.Since(start))
			if s := p.Stats(); s.Drift != 0 || s.Rebuilds != 1 {
				t.Errorf("after a repair of nothing: %+v", s)
			}
		})
	}
}

// How long somebody else's damage lasts among 100,000 endpoints, from the answer to him until all is
// as it was.
func TestRepairFigures(t *testing.T) {
	h := netlab.NewHost(t)
	watch := &stopwatch{}
	p := newPlane(t, h, Config{Socket: func(kernel Socket) Socket { watch.Socket = kernel; return watch }})
	apply(t, p, Changes{Complete: true, Put: manyServices(10_000, 10), Node: node})
	start(t, p)
	var other *conn
	var err error
	h.Do(t, func() { other, err = dial() })
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	entryOf := func(i int) *entry { return p.entries[fmt.Sprintf("ns/service-%d/http", i)] }
	for _, kind := range []struct {
		name string
		// changes are how many repair it once; 0: a new table.
		times, changes int
		damage         func(b *batch, i int)
	}{
		{"delete one element", 10, 1, func(b *batch, i int) { b.deleteElement(entryOf(i).elements()[3]) }},
		{"delete 1,000 elements", 5, 1000, func(b *batch, i int) {
			for j := range 1000 {
				b.deleteElement(entryOf(1000*i + j).elements()[4])
			}
		}},
		{"add an element", 10, 1, func(b *batch, i int) {
			b.addElement(element{set: endpoints, key: numbersKey(uint32(i)<<20, 1), data: addrPort(ap("10.9.9.9:9"))})
		}},
		{"flush a chain", 10, 1, func(b *batch, _ int) { b.flushChain("translate4") }},
		{"delete a chain", 10, 1, func(b *batch, _ int) { b.deleteChain(natPrerouting) }},
		{"flush all rules", 5, len(dual.wantedChains(p.shapes)), func(b *batch, _ int) {
			for _, c := range dual.wantedChains(p.shapes) {
				b.flushChain(c.name)
			}
		}},
		{"flush 10,000 elements", 5, 10_000, func(b *batch, _ int) { b.flushSet(sets[services]) }},
		{"flush 100,000 elements", 5, 100_000, func(b *batch, _ int) { b.flushSet(sets[endpoints]) }},
		{"delete the table", 5, 0, func(b *batch, _ int) { b.deleteTable(b.table) }},
	} {
		var first, took, kernel []time.Duration
		for i := range kind.times {
			time.Sleep(2 * mendPause) // damage that comes at once after a repair waits
			p.mu.Lock()
			b := newBatch(other, p.table)
			kind.damage(b, i)
			before := p.stats
			watch.sending, watch.first = 0, time.Time{}
			p.mu.Unlock()
			if err := other.transact(b.finish()); err != nil {
				t.Fatal(kind.name, err)
			}
			began := time.Now()
			repaired := func() bool {
				s := p.Stats()
				return kind.changes > 0 && s.Drift-before.Drift >= uint64(kind.changes) || s.Rebuilds > before.Rebuilds
			}
			for !repaired() {
				if time.Since(began) > 30*time.Second {
					t.Fatal(kind.name, "is not repaired")
				}
				time.Sleep(100 * time.Microsecond)
			}
			took = append(took, time.Since(began))
			p.mu.Lock()
			kernel = append(kernel, watch.sending)
			first = append(first, max(0, watch.first.Sub(began)))
			p.mu.Unlock()
			if s := p.Stats(); kind.changes > 0 && s.Readings > before.Readings {
				t.Errorf("%s: all of the kernel was read", kind.name)
			}
		}
		for _, all := range [][]time.Duration{first, took, kernel} {
			slices.Sort(all)
		}
		t.Logf("%-24s p50 %v, max %v; the first part p50 %v, max %v; of all that in the kernel p50 %v, max %v",
			kind.name, took[len(took)/2], took[len(took)-1], first[len(first)/2], first[len(first)-1], kernel[len(kernel)/2], kernel[len(kernel)-1])
	}
}

// stopwatch adds up how long the kernel takes for what is sent to it.
type stopwatch struct {
	Socket
	sending time.Duration
	// first is when the first transaction was made.
	first time.Time
}

func (w *stopwatch) Send(b []byte) error {
	began := time.Now()
	err := w.Socket.Send(b)
	w.sending += time.Since(began)
	if w.first.IsZero() && native.Uint16(b[4:]) == unix.NFNL_MSG_BATCH_BEGIN {
		w.first = time.Now()
	}
	return err
}
