package nft

import (
	"testing"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// Cleanup leaves the counters of connection tracking as they were before.
func TestAccountingIsPutBack(t *testing.T) {
	for _, c := range []struct{ name, before, meanwhile, after string }{
		{"it was off", "0", "", "0"},
		{"it was on", "1", "", "1"},
		{"it was off, and somebody has switched it off again", "0", "0", "0"},
	} {
		h := netlab.NewHost(t)
		h.Sysctl(t, "net/netfilter/nf_conntrack_acct", c.before)
		read := func() (now string) {
			h.Do(t, func() {
				var err error
				if now, err = accounting(); err != nil {
					t.Error(err)
				}
			})
			return now
		}
		do := func(f func() error) {
			t.Helper()
			var err error
			if h.Do(t, func() { err = f() }); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		do(UncountFlows) // nothing was done yet
		if got := read(); got != c.before {
			t.Errorf("%s: %s before anything", c.name, got)
		}
		do(CountFlows)
		do(CountFlows) // the next process
		if got := read(); got != "1" {
			t.Errorf("%s: %s while it runs", c.name, got)
		}
		if c.meanwhile != "" {
			h.Sysctl(t, "net/netfilter/nf_conntrack_acct", c.meanwhile)
		}
		do(UncountFlows)
		if got := read(); got != c.after {
			t.Errorf("%s: %s after cleanup", c.name, got)
		}
		if got := foreign(t, h, "list", "tables"); got != "" {
			t.Errorf("%s: left behind: %s", c.name, got)
		}
	}
}
