package svcproxy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// parseEndpoints reads "name[,flag]..." where a flag is a condition (ready is meant otherwise),
// "here" for this node, or a hint.
func parseEndpoints(t *testing.T, text string) []Endpoint {
	t.Helper()
	var all []Endpoint
	for word := range strings.FieldsSeq(text) {
		parts := strings.Split(word, ",")
		e := Endpoint{Pod: parts[0], Addr: netip.MustParseAddrPort("10.0.0.1:80"), Ready: true, Serving: true}
		for _, flag := range parts[1:] {
			key, value, _ := strings.Cut(flag, "=")
			switch key {
			case "here":
				e.Local = true
			case "unready":
				e.Ready, e.Serving = false, false
			case "terminating":
				e.Ready, e.Terminating = false, true
			case "dead":
				e.Ready, e.Serving, e.Terminating = false, false, true
			case "zone":
				e.hints = withHints(e.hints)
				e.hints.zones = append(e.hints.zones, value)
			case "node":
				e.hints = withHints(e.hints)
				e.hints.nodes = append(e.hints.nodes, value)
			default:
				t.Fatalf("endpoint %q", word)
			}
		}
		all = append(all, e)
	}
	return all
}

func withHints(h *hints) *hints {
	if h == nil {
		return &hints{}
	}
	return h
}

// The facts are those that kube-proxy's own tests assert.
func TestCategorize(t *testing.T) {
	cluster, local, both := policies{cluster: true}, policies{local: true}, policies{cluster: true, local: true}
	for _, c := range []struct {
		name      string
		need      policies
		zone      string
		endpoints string
		cluster   string
		local     string
		why       string // of each, where it matters
		unusable  bool
	}{
		{
			name: "zone hints", need: cluster, zone: "a", endpoints: "1,zone=a 2,zone=b 3,zone=c 4,zone=a", cluster: "1 4",
			why: "ready|hints keep it for another zone|hints keep it for another zone|ready",
		},
		{
			name: "zone hints do not count for Local", need: both, zone: "a", endpoints: "1,zone=a,here 2,zone=b,here 3,zone=c 4,zone=a", cluster: "1 4", local: "1 2",
			why: "ready|used for traffic policy Local only|hints keep it for another zone|ready",
		},
		{name: "node without a zone", need: cluster, endpoints: "1,zone=a", cluster: "1"},
		{name: "no hint for this zone", need: cluster, zone: "b", endpoints: "1,zone=a", cluster: "1"},
		{
			name: "one that is not ready", need: cluster, zone: "a", endpoints: "1,zone=a 2,zone=b 3,zone=c 4,zone=a,unready", cluster: "1",
			why: "ready|hints keep it for another zone|hints keep it for another zone|not ready",
		},
		{name: "none ready in this zone", need: cluster, zone: "a", endpoints: "1,zone=a,unready 2,zone=b 3,zone=c 4,zone=a,unready", cluster: "2 3"},
		{name: "a hint is missing", need: cluster, zone: "a", endpoints: "1,zone=a 2,zone=b 3 4,zone=a", cluster: "1 2 3 4"},
		{name: "several hints each", need: cluster, zone: "c", endpoints: "1,zone=a,zone=b,zone=c 2,zone=b,zone=c 3,zone=b,zone=d 4,zone=c", cluster: "1 2 4"},
		{
			name: "node hints come first", need: cluster, zone: "a", endpoints: "1,zone=a,node=n 2,zone=b,node=2 3,zone=c,node=3 4,zone=a,node=4", cluster: "1",
			why: "ready|hints keep it for another node|hints keep it for another node|hints keep it for another node",
		},
		{name: "a node hint is missing, and a zone hint", need: cluster, zone: "a", endpoints: "1,zone=a,node=n 2 3,zone=c,node=3 4,zone=a,node=4", cluster: "1 2 3 4"},
		{name: "no node hint for here: zones", need: cluster, zone: "a", endpoints: "1,zone=a,node=1 2,zone=b,node=2 3,zone=c,node=3 4,zone=a,node=4", cluster: "1 4"},
		{name: "hints against localness", need: both, zone: "a", endpoints: "0,zone=a,here 1,zone=b,here 2,zone=a 3,zone=b", cluster: "0 2", local: "0 1"},
		{name: "Local without endpoints", need: local, unusable: true},
		{
			name: "Local, all elsewhere", need: local, endpoints: "0 1",
			why: "on another node, and the traffic policy is Local|on another node, and the traffic policy is Local",
		},
		{name: "Local, all here", need: local, endpoints: "0,here 1,here", local: "0 1", why: "ready|ready"},
		{name: "Local, some here", need: local, endpoints: "0,here 1", local: "0"},
		{name: "Cluster, none ready", need: cluster, endpoints: "0,unready 1,unready", unusable: true},
		{name: "Cluster, some ready", need: cluster, endpoints: "0,unready 1", cluster: "1"},
		{
			name: "Cluster, all terminating", need: cluster, endpoints: "0,terminating,here 1,terminating", cluster: "0 1",
			why: "terminating, but still serves and no other is ready|terminating, but still serves and no other is ready",
		},
		{name: "both, some here", need: both, endpoints: "0,here 1", cluster: "0 1", local: "0"},
		{name: "both, all elsewhere", need: both, endpoints: "0 1", cluster: "0 1"},
		{name: "both, all elsewhere and terminating", need: both, endpoints: "0,terminating 1,terminating", cluster: "0 1"},
		{
			name: "both fall back independently", need: both, endpoints: "0 1,unready,here 2,terminating,here 3,terminating", cluster: "0", local: "2",
			why: "ready|not ready|terminating, but still serves and no other on this node is ready; for traffic policy Local only|terminating, and others are ready",
		},
		{name: "terminating and not serving", need: cluster, endpoints: "0,dead", unusable: true},
		{name: "no endpoints", need: cluster, unusable: true},
		{name: "one of nothing", need: cluster, zone: "a", endpoints: "0,unready", unusable: true},
		{name: "no policy asked for", endpoints: "0,here", unusable: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := parseEndpoints(t, c.endpoints)
			usable := categorize(all, c.need, place{node: "n", zone: c.zone})
			var inCluster, inLocal, why []string
			for _, e := range all {
				why = append(why, string(e.Why))
				if e.Cluster {
					inCluster = append(inCluster, e.Pod)
				}
				if e.ForLocal {
					inLocal = append(inLocal, e.Pod)
				}
			}
			if diff := cmp.Diff(strings.Fields(c.cluster), inCluster); diff != "" && len(inCluster)+len(c.cluster) > 0 {
				t.Errorf("Cluster: %s", diff)
			}
			if diff := cmp.Diff(strings.Fields(c.local), inLocal); diff != "" && len(inLocal)+len(c.local) > 0 {
				t.Errorf("Local: %s", diff)
			}
			if c.why != "" && !slices.Equal(strings.Split(c.why, "|"), why) {
				t.Errorf("reasons %q, want %q", why, strings.Split(c.why, "|"))
			}
			if usable == c.unusable {
				t.Errorf("usable %v", usable)
			}
		})
	}
}
