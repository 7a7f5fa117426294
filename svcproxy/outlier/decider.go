// Package outlier decides which endpoints of a Service are skipped because new connections to them
// fail, and when they are tried again. It does nothing itself: who uses it tells it of failures, asks
// the endpoints that it wants asked, and leaves out those that it names. README.md has the reasons.
package outlier

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Config of a Decider. Its zero value works.
type Config struct {
	// Failures of new connections within Window make an endpoint suspect; zero: 3 within 10 s.
	Failures int
	Window   time.Duration
	// Ejection is for how long it is skipped. It doubles each time that this is again so, up to
	// MaxEjection; zero: 10 s and 5 min. Who was not skipped for MaxEjection begins anew.
	Ejection, MaxEjection time.Duration
}

// Validate reports what makes no sense.
func (c *Config) Validate() error {
	switch {
	case c.Failures < 0 || c.Failures > maxFailures:
		return fmt.Errorf("outlier: Config.Failures is %d, want 1 to %d", c.Failures, maxFailures)
	case c.Window < 0, c.Ejection < 0, c.MaxEjection < 0:
		return errors.New("outlier: a time of Config is negative")
	}
	return nil
}

func (c Config) withDefaults() Config {
	c.Failures = cmp.Or(c.Failures, 3)
	c.Window = cmp.Or(c.Window, 10*time.Second)
	c.Ejection = cmp.Or(c.Ejection, 10*time.Second)
	c.MaxEjection = max(cmp.Or(c.MaxEjection, 5*time.Minute), c.Ejection)
	return c
}

// What is remembered is bounded. Failures of other endpoints are then not noticed, which is as good
// as without this package.
const (
	maxFailures  = 100
	maxPerPort   = 256
	maxEndpoints = 4096
)

// calm is how long after a probe that was accepted no other is made, so that who makes connections
// fail on purpose does not make one for each.
const calm = time.Second

// Endpoint is one address of one Service port. The same address of another Service is another
// one, so that nobody decides for anybody else.
type Endpoint struct {
	// Port is the key of the Service port.
	Port string
	Addr netip.AddrPort
}

// Answer is what an endpoint said to a connection.
type Answer uint8

// The Answers.
const (
	Silent Answer = iota
	Refused
	Accepted
)

// Failing is an endpoint to be skipped, and why.
type Failing struct {
	Endpoint
	// Since is when it was first found to fail, Until when it is tried again.
	Since, Until time.Time
	// Why is like "refused 3 connections in 2s".
	Why string
}

// Decider remembers which endpoints fail. It belongs to one goroutine.
type Decider struct {
	cfg   Config
	ports map[string]map[netip.AddrPort]*record
	size  int
	// ignored are failures that there was no room to remember.
	ignored uint64
}

// record is what is known of an endpoint that has failed.
type record struct {
	// failures are the last ones, oldest first.
	failures []time.Time
	asked    bool // a probe is on its way
	// skipped until then; zero: not.
	until, since time.Time
	why          string
	// times it was skipped in a row; back is when it last came back.
	times int
	back  time.Time
	// quiet: until then failures do not count, because it has just accepted a connection.
	quiet time.Time
}

// New returns a Decider that knows nothing yet.
func New(cfg Config) *Decider {
	return &Decider{cfg: cfg.withDefaults(), ports: map[string]map[netip.AddrPort]*record{}}
}

// Ignored is how many failures there was no room to remember.
func (d *Decider) Ignored() uint64 { return d.ignored }

// Failed takes note that a new connection to an endpoint failed. It tells whether the endpoint is
// to be asked for a connection now, and Probed to be told what it said.
func (d *Decider) Failed(e Endpoint, now time.Time) (ask bool) {
	r := d.record(e, now)
	if r == nil {
		d.ignored++
		return false
	}
	if r.asked || !r.until.IsZero() || now.Before(r.quiet) {
		return false // of a connection that began before
	}
	r.failures = slices.DeleteFunc(r.failures, func(t time.Time) bool { return now.Sub(t) > d.cfg.Window })
	r.failures = append(r.failures, now)
	r.asked = len(r.failures) >= d.cfg.Failures
	return r.asked
}

// record gives that of an endpoint, a new one if there is room; or nil.
func (d *Decider) record(e Endpoint, now time.Time) *record {
	if r := d.ports[e.Port][e.Addr]; r != nil {
		return r
	}
	if d.size >= maxEndpoints || len(d.ports[e.Port]) >= maxPerPort {
		if d.sweep(now); d.size >= maxEndpoints || len(d.ports[e.Port]) >= maxPerPort {
			return nil
		}
	}
	if d.ports[e.Port] == nil {
		d.ports[e.Port] = map[netip.AddrPort]*record{}
	}
	r := &record{}
	d.ports[e.Port][e.Addr] = r
	d.size++
	return r
}

// sweep forgets what does not count any more.
func (d *Decider) sweep(now time.Time) {
	for port, all := range d.ports {
		for addr, r := range all {
			quiet := len(r.failures) == 0 || now.Sub(r.failures[len(r.failures)-1]) > d.cfg.Window
			if quiet && !r.asked && r.until.IsZero() && now.Sub(r.back) > d.cfg.MaxEjection {
				d.forget(Endpoint{port, addr})
			}
		}
	}
}

func (d *Decider) forget(e Endpoint) {
	if _, ok := d.ports[e.Port][e.Addr]; !ok {
		return
	}
	d.size--
	if delete(d.ports[e.Port], e.Addr); len(d.ports[e.Port]) == 0 {
		delete(d.ports, e.Port)
	}
}

// Probed takes what an endpoint that was asked said, and whether others of the Service, who were
// asked from the same place at the same time, accepted. It tells whether the endpoint is skipped from
// now on, or not any more.
//
// Only a connection of our own decides: clients can make theirs fail without the endpoint being to
// blame. Silence is the endpoint's only if others are heard: else it is the way to all of them, or
// a policy that lets nobody from here through.
func (d *Decider) Probed(e Endpoint, said Answer, othersAccept bool, now time.Time) (changed bool) {
	r := d.ports[e.Port][e.Addr]
	if r == nil || !r.asked {
		return false // forgotten meanwhile
	}
	r.asked = false
	was := !r.until.IsZero()
	switch {
	case said == Accepted:
		r.failures, r.until, r.quiet = nil, time.Time{}, now.Add(calm)
		if was {
			r.back = now
		}
		return was
	case said == Silent && !othersAccept && was:
		r.until = now.Add(d.cfg.Ejection)
		return true
	case said == Silent && !othersAccept:
		r.failures = nil
		return false
	}
	if !was {
		r.begin(d.cfg, said, now)
	}
	r.until = now.Add(d.duration(r.times))
	r.times++
	return true
}

// begin skips an endpoint that was not.
func (r *record) begin(cfg Config, said Answer, now time.Time) {
	what := "did not answer"
	if said == Refused {
		what = "refused"
	}
	took := now.Sub(r.failures[0]).Round(time.Second)
	r.why = fmt.Sprintf("%s %d connections in %v", what, len(r.failures), max(took, time.Second))
	r.since, r.failures = now, nil
	if now.Sub(r.back) > cfg.MaxEjection {
		r.times = 0
	}
}

func (d *Decider) duration(times int) time.Duration {
	t := d.cfg.Ejection
	for range times {
		if t >= d.cfg.MaxEjection {
			break
		}
		t *= 2
	}
	return min(t, d.cfg.MaxEjection)
}

// Due gives the endpoints that have been skipped for long enough: they are to be asked, and Probed
// to be told.
func (d *Decider) Due(now time.Time) (all []Endpoint) {
	for port, records := range d.ports {
		for addr, r := range records {
			if !r.asked && !r.until.IsZero() && !now.Before(r.until) {
				r.asked = true
				all = append(all, Endpoint{port, addr})
			}
		}
	}
	return all
}

// Next is when Due has something to give, or zero.
func (d *Decider) Next() (next time.Time) {
	for _, records := range d.ports {
		for _, r := range records {
			if !r.asked && !r.until.IsZero() && (next.IsZero() || r.until.Before(next)) {
				next = r.until
			}
		}
	}
	return next
}

// Keep forgets the endpoints of a Service port that keep does not want kept, because they are gone, or
// not ready: when they are again, somebody has found them to be.
func (d *Decider) Keep(port string, keep func(netip.AddrPort) bool) {
	for addr := range d.ports[port] {
		if !keep(addr) {
			d.forget(Endpoint{port, addr})
		}
	}
}

// Failing are the endpoints of a Service port that are to be skipped, those first that fail for longest.
func (d *Decider) Failing(port string) (all []Failing) {
	for addr, r := range d.ports[port] {
		if !r.until.IsZero() {
			all = append(all, Failing{Endpoint{port, addr}, r.since, r.until, r.why})
		}
	}
	slices.SortFunc(all, func(a, b Failing) int { return cmp.Or(a.Since.Compare(b.Since), a.Addr.Compare(b.Addr)) })
	return all
}

// Ports are the keys of all Service ports that something is remembered of.
func (d *Decider) Ports() (all []string) {
	for port := range d.ports {
		all = append(all, port)
	}
	slices.Sort(all)
	return all
}
