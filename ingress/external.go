package ingress

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// resolveEvery is how often a name is resolved again. Go's resolver does not tell how
	// long an answer may be kept.
	resolveEvery = 5 * time.Second
	// resolveTimeout bounds one resolution, and resolveAtOnce how many there are at a time.
	resolveTimeout = 5 * time.Second
	resolveAtOnce  = 16
)

// resolver resolves the wanted names again and again. It decides nothing about the answers.
type resolver struct {
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	answers chan answer
	// changes has the latest set of wanted names; whoever puts one takes an older out first.
	changes chan map[string]struct{}
	wanted  int // names in the last set; of the caller of want
}

func newResolver(lookup func(context.Context, string) ([]netip.Addr, error)) *resolver {
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return &resolver{lookup: lookup, answers: make(chan answer), changes: make(chan map[string]struct{}, 1)}
}

// want sets the names to resolve. It does not block.
func (r *resolver) want(hosts map[string]struct{}) {
	if len(hosts) == 0 && r.wanted == 0 {
		return
	}
	r.wanted = len(hosts)
	select {
	case <-r.changes:
	default:
	}
	r.changes <- hosts
}

// run resolves until ctx ends, each name in a goroutine of its own.
func (r *resolver) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, resolveAtOnce)
	stops := map[string]context.CancelFunc{}
	for {
		select {
		case <-ctx.Done():
			for _, stop := range stops {
				stop()
			}
			return
		case hosts := <-r.changes:
			for host, stop := range stops {
				if _, ok := hosts[host]; !ok {
					stop()
					delete(stops, host)
				}
			}
			for host := range hosts {
				if stops[host] == nil {
					name, stop := context.WithCancel(ctx)
					stops[host] = stop
					running.Go(func() { r.follow(name, host, slots) })
				}
			}
		}
	}
}

// follow resolves one name until ctx ends.
func (r *resolver) follow(ctx context.Context, host string, slots chan struct{}) {
	again := time.NewTicker(resolveEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		a := r.resolve(ctx, host)
		<-slots
		select {
		case <-ctx.Done():
			return
		case r.answers <- a:
		}
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

func (r *resolver) resolve(ctx context.Context, host string) answer {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addresses, err := r.lookup(ctx, host)
	return answer{host: host, addresses: addresses, err: err}
}
