package nft

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// pickChainsOf is how many chains of shapes the kernel has.
func pickChainsOf(t testing.TB, p *Plane) (n int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	live, err := p.readTable(p.table)
	if err != nil {
		t.Fatal(err)
	}
	for name := range live.chains {
		if strings.HasPrefix(name, "pick") {
			n++
		}
	}
	return n
}

// Whoever changes an affinity again and again leaves no more chains behind than a bound, and nobody
// loses a packet when they are removed, neither another Service nor this one.
func TestSpareShapesAreRemoved(t *testing.T) {
	const changes = 300
	l, all := servers(t)
	n := l.Nodes[0]
	p := newPlane(t, n, Config{})
	start(t, p)
	affine := func(i int) *Service {
		return changing(82, time.Duration(i+1)*time.Second, "10.180.0.10:8080", "10.180.0.11:8080")
	}
	apply(t, p, Changes{Complete: true, Put: append(all, affine(0)), Node: node})
	chains := pickChainsOf(t, p)
	traffic := l.Client.StartTraffic(t, append(slices.Clone(toSteady), netlab.Destination{Network: "tcp", Addr: "172.30.0.9:82"})...)
	took := make([]time.Duration, changes)
	most := 0
	for i := range changes {
		began := time.Now()
		apply(t, p, Changes{Put: []*Service{affine(i + 1)}})
		took[i] = time.Since(began)
		if i%10 == 0 {
			most = max(most, pickChainsOf(t, p))
		}
	}
	traffic.Stop()
	each := len(p.conn.layout.pickChains(newShape(1, 0)))
	if bound := chains + each*(maxSpareShapes+2); most > bound || most < bound/2 {
		t.Errorf("the kernel had up to %d chains of shapes, want no more than %d", most, bound)
	}
	if traffic.Asked() < 100 {
		t.Errorf("only %d connections and packets", traffic.Asked())
	}
	slices.Sort(took)
	t.Logf("%d chains at most, %d connections and packets; a change took %v, at most %v", most, traffic.Asked(), took[changes/2], took[changes-1])
	if s := p.Stats(); s.Failures != 0 || s.Readings != 1 {
		t.Errorf("%+v", s)
	}
	bystander := newPlane(t, n, Config{Socket: func(kernel Socket) Socket { return netlab.Bystander{Socket: kernel} }})
	apply(t, bystander, Changes{Complete: true, Put: append(all, affine(changes)), Node: node})
	works(t, l)
}

// oneEach are Services of as many shapes.
func oneEach(n int) (all []*Service) {
	for i := range n {
		all = append(all, changing(uint16(1000+i), time.Duration(i+1)*time.Minute, "10.180.0.10:8080"))
	}
	return all
}

// What another process left is removed by the next, bit by bit; and shapes that are in use stay.
func TestSpareShapesOfAnotherProcess(t *testing.T) {
	l, all := servers(t)
	n := l.Nodes[0]
	first := newPlane(t, n, Config{})
	many := oneEach(maxRemovedShapes + 2*maxSpareShapes)
	apply(t, first, Changes{Complete: true, Put: append(many, all...), Node: node})
	used := pickChainsOf(t, first)
	apply(t, first, Changes{Put: []*Service{changing(81, 0, "10.180.0.10:8080")}})
	if got := pickChainsOf(t, first); got != used {
		t.Errorf("%d chains, and %d are in use", got, used)
	}
	apply(t, first, Changes{Complete: true, Put: all})
	first.Close()

	p := newPlane(t, n, Config{})
	start(t, p)
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	had := []int{pickChainsOf(t, p)}
	for range 4 {
		apply(t, p, Changes{})
		had = append(had, pickChainsOf(t, p))
	}
	less, least := used-4*maxRemovedShapes, used-4*len(many)
	if want := []int{used, used, less, least, least}; !slices.Equal(had, want) {
		t.Errorf("chains: %v, want %v", had, want)
	}
	works(t, l)
	// One of those that are gone is made again.
	apply(t, p, Changes{Put: many[:1]})
	if _, err := l.Client.AskPatiently(t, "tcp", ap("172.30.0.9:1000")); err != nil {
		t.Error(err)
	}
	if !whole(t, p) {
		t.Error("the rules are not as wanted")
	}
}

// Chains that somebody else holds cost no reading of the kernel with each change.
func TestSpareShapesThatAreHeld(t *testing.T) {
	l, all := servers(t)
	n := l.Nodes[0]
	first := newPlane(t, n, Config{})
	apply(t, first, Changes{Complete: true, Put: append(oneEach(maxSpareShapes+1), all...), Node: node})
	apply(t, first, Changes{Complete: true, Put: all})
	first.Close()
	p := newPlane(t, n, Config{})
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	held := p.conn.layout.pickChains(newShape(1, time.Minute))[0].name
	foreign(t, n, fmt.Sprintf("add map inet portico-a mine { type mark : verdict; elements = { 1 : goto %s } }", held))
	for range 5 {
		apply(t, p, Changes{})
	}
	if s := p.Stats(); s.Failures != 1 || s.Readings != 2 {
		t.Errorf("%+v", s)
	}
	works(t, l)
}
