// Package load sends requests at a steady rate and remembers everything that
// went wrong.
//
// The rate does not follow the answers: a request is due when it is due, and
// its latency counts from then, so a server that stalls is not spared the
// requests it would have got meanwhile. Connections are plain ones under our
// own hands, because an ordinary client hides failures by trying again.
package load

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"
)

// Options say what is sent. URL and Rate are needed.
type Options struct {
	URL  string `json:"url"`            // its host must be an address, see Host
	Host string `json:"host,omitempty"` // Host header and TLS server name; empty: URL's

	Method string            `json:"method,omitempty"` // GET if empty
	Body   string            `json:"body,omitempty"`
	Header map[string]string `json:"header,omitempty"`

	Rate        int `json:"rate"`                  // requests a second
	Connections int `json:"connections,omitempty"` // at most; 8 if zero
	// NewConnections opens one for every request instead of keeping them.
	NewConnections bool `json:"newConnections,omitempty"`
	// StrictReuse counts it as a failure when a kept connection turns out to be
	// closed before any of the answer came. Otherwise the request is sent again
	// on a new one and counted as Stale, which is what browsers and curl do.
	StrictReuse bool `json:"strictReuse,omitempty"`

	Duration time.Duration `json:"duration,omitempty"` // zero: until stopped
	Timeout  time.Duration `json:"timeout,omitempty"`  // of one request; 10s if zero
}

// Result is what happened.
type Result struct {
	Sent   int `json:"sent"`
	OK     int `json:"ok"` // answers with a status of 2xx, whole
	Failed int `json:"failed"`
	Stale  int `json:"stale"` // sent again, see Options.StrictReuse
	// Failures are the first of them in detail.
	Failures []Failure   `json:"failures,omitempty"`
	Statuses map[int]int `json:"statuses"`
	// Pods counts answers by their X-Echo-Pod header.
	Pods map[string]int `json:"pods,omitempty"`
	// Certificates counts TLS handshakes by the certificate's serial number.
	Certificates map[string]int `json:"certificates,omitempty"`

	Duration time.Duration `json:"duration"`
	P50      time.Duration `json:"p50"`
	P90      time.Duration `json:"p90"`
	P99      time.Duration `json:"p99"`
	Max      time.Duration `json:"max"`
}

// Failure is one request that was not answered as it should be.
type Failure struct {
	After  time.Duration `json:"after"` // since the start
	Took   time.Duration `json:"took"`
	Status int           `json:"status,omitempty"` // zero: there was no whole answer
	Error  string        `json:"error,omitempty"`
	Reused bool          `json:"reused,omitempty"` // on a kept connection
	Body   string        `json:"body,omitempty"`   // how the answer began
}

func (f Failure) String() string {
	what := f.Error
	if f.Status != 0 {
		what = fmt.Sprintf("status %d %s %q", f.Status, f.Error, f.Body)
	}
	return fmt.Sprintf("at %.3fs after %.3fs (kept connection: %t): %s", f.After.Seconds(), f.Took.Seconds(), f.Reused, what)
}

// String is the result on one line.
func (r *Result) String() string {
	return fmt.Sprintf("%d sent in %.1fs, %d ok, %d failed, %d stale, latency p50 %s p90 %s p99 %s max %s",
		r.Sent, r.Duration.Seconds(), r.OK, r.Failed, r.Stale,
		round(r.P50), round(r.P90), round(r.P99), round(r.Max))
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// maxFailures is how many failures are told in detail.
const maxFailures = 100

// Validate fills in defaults and says what is wrong.
func (o *Options) Validate() error {
	u, err := url.Parse(o.URL)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("load: %q is not an http or https URL", o.URL)
	}
	if o.Rate <= 0 {
		return errors.New("load: no rate given")
	}
	if o.Connections == 0 {
		o.Connections = 8
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Method == "" {
		o.Method = "GET"
	}
	return nil
}

// Run sends requests until the duration is over or ctx is, waits for the
// answers of those on their way, and tells what happened.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	start := time.Now()
	due := make(chan time.Time, 10*o.Rate)
	tallies := make([]*tally, o.Connections)
	var wg sync.WaitGroup
	for i := range tallies {
		tallies[i] = newTally(start)
		wg.Go(func() { work(&client{options: &o, tally: tallies[i]}, due) })
	}
	err := schedule(ctx, start, o.Rate, due)
	close(due)
	wg.Wait()
	return merge(tallies, time.Since(start)), err
}

// work sends a request each time one is due.
func work(c *client, due <-chan time.Time) {
	defer c.close()
	for at := range due {
		c.tally.add(at, c.do())
	}
}

// schedule says when requests are due, until ctx is over.
func schedule(ctx context.Context, start time.Time, rate int, due chan<- time.Time) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 0; ; n++ {
		at := start.Add(time.Duration(n) * time.Second / time.Duration(rate))
		if wait := time.Until(at); wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case due <- at:
		default:
			return fmt.Errorf("load: more than %d requests wait for a connection", cap(due))
		}
	}
}
