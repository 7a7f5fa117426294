package nft

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// Probe leaves no table, beside a live one or alone.
func TestProbeChangesNothing(t *testing.T) {
	h := netlab.NewHost(t)
	var p *Plane
	var err error
	h.Do(t, func() { p, err = New(Config{}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	tables := func() (n int) {
		if err := p.dump(unix.NFT_MSG_GETTABLE, "", "", func(message) { n++ }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for want := range 2 {
		if err := p.Probe(); err != nil {
			t.Fatal(err)
		}
		if got := tables(); got != want {
			t.Errorf("%d tables, want %d", got, want)
		}
		if err := p.Apply(Changes{Complete: true}); err != nil {
			t.Fatal(err)
		}
	}
}
