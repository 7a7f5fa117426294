package svcproxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/outlier"
)

// Each letter is an endpoint: c is used for traffic policy Cluster, l for Local, b for both, - for
// none; a capital one fails.
func TestSkipFailing(t *testing.T) {
	until := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		endpoints string
		percent   int
		want, why string
	}{
		{"cc", 0, "cc", ""},
		{"Cc", 0, "-c", "skipped: refused 3 connections in 2s, until 12:00:00 UTC"},
		{"CC", 0, "-c", "ready, and fails (refused 3 connections in 2s), but is used: no more than 50% of the endpoints are skipped, and never the last"},
		{"C", 0, "c", "but is used"},
		{"C", 100, "c", "but is used"},
		{"CCcc", 0, "--cc", ""},
		{"CCCc", 0, "--cc", ""},
		{"CCCc", 100, "---c", ""},
		{"CCCC", 100, "---c", ""},
		{"CCccc", 10, "-cccc", ""},
		{"Bc", 0, "lc", "skipped for traffic policy Cluster only: refused"},
		{"Bl", 0, "cl", "skipped for traffic policy Local only: refused"}, // the last of Cluster
		{"Bb", 0, "-b", "skipped: refused"},
		{"_c", 0, "-c", "not ready"},
	} {
		var all []Endpoint
		var failing []outlier.Failing
		for i, letter := range c.endpoints {
			lower := strings.ToLower(string(letter))
			e := Endpoint{
				Addr:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80),
				Cluster: lower == "c" || lower == "b", ForLocal: lower == "l" || lower == "b", Why: ReasonReady,
			}
			if letter == '_' {
				e.Why = ReasonNotReady
			}
			if lower != string(letter) || letter == '_' {
				failing = append(failing, outlier.Failing{Endpoint: outlier.Endpoint{Addr: e.Addr}, Until: until, Why: "refused 3 connections in 2s"})
			}
			all = append(all, e)
		}
		skipFailing(all, failing, c.percent)
		got, why := "", fmt.Sprint(all)
		for _, e := range all {
			switch {
			case e.Cluster && e.ForLocal:
				got += "b"
			case e.Cluster:
				got += "c"
			case e.ForLocal:
				got += "l"
			default:
				got += "-"
			}
		}
		if got != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s, %d%%: %s, want %s: %s, want %q", c.endpoints, c.percent, got, c.want, why, c.why)
		}
	}
}
