package netlab

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// askEvery keeps the connections that tracking remembers below what it has room for.
const askEvery = 20 * time.Millisecond

// Destination is where Traffic goes: an address, by tcp or udp.
type Destination struct{ Network, Addr string }

// Traffic goes from a host to some addresses all the time, by new connections and by one that stays.
// All of it has to be answered; a packet of UDP that is lost is not repeated.
type Traffic struct {
	from    *Host
	end     context.CancelFunc
	clients sync.WaitGroup
	asked   atomic.Int64
}

// StartTraffic begins when each address has answered once.
func (h *Host) StartTraffic(t testing.TB, to ...Destination) *Traffic {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	k := &Traffic{from: h, end: end}
	t.Cleanup(func() { k.Stop() })
	for _, d := range to {
		open, err := h.Dial(t, d.Network, netip.AddrPort{}, netip.MustParseAddrPort(d.Addr), patience)
		if err != nil {
			t.Fatalf("%s %s: %v", d.Network, d.Addr, err)
		}
		if _, err := Talk(open, patience); err != nil {
			t.Fatalf("%s %s: %v", d.Network, d.Addr, err)
		}
		k.clients.Go(func() {
			defer open.Close()
			pace := time.NewTicker(askEvery)
			defer pace.Stop()
			for ctx.Err() == nil && k.ask(t, d, open) {
				<-pace.C
			}
		})
	}
	return k
}

// ask makes a new connection and talks on one that is open.
func (k *Traffic) ask(t testing.TB, d Destination, open net.Conn) bool {
	t.Helper()
	_, err := k.from.AskPatiently(t, d.Network, netip.MustParseAddrPort(d.Addr))
	if err == nil {
		_, err = Talk(open, patience)
	}
	if err != nil {
		t.Errorf("%s %s is not served: %v, after %d others were", d.Network, d.Addr, err, k.asked.Load())
		return false
	}
	k.asked.Add(1)
	return true
}

// Asked is how many were answered.
func (k *Traffic) Asked() int64 { return k.asked.Load() }

// Stop ends it.
func (k *Traffic) Stop() {
	k.end()
	k.clients.Wait()
}
