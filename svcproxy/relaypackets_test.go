package svcproxy

import (
	"bufio"
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/relay"
)

// notRelayed are the cases that mean nothing in userspace, and why.
var notRelayed = map[string]string{
	"cluster-ip":            "what nobody has, and a cluster IP's other ports, are decided before any socket",
	"hairpin":               "every connection is the node's own",
	"masquerade-all":        "every connection is masqueraded",
	"internal-policy-local": "a cluster IP is on both nodes at once",
	"hints":                 "a cluster IP is on both nodes at once",
	"hints-nodes":           "a cluster IP is on both nodes at once",
	"proxy-name":            "asks from Pods for a cluster IP that is on no node",
}

// TestRelayedPackets runs the cases of TestPackets with the data plane in userspace. Its nodes have
// the Services' addresses: node 0 has those of load balancers and cluster IPs. All endpoints see the
// node as their client; whatever else a case says of it is of the kernel's data plane alone.
func TestRelayedPackets(t *testing.T) {
	files, err := filepath.Glob("testdata/packets/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		if _, ok := notRelayed[name]; ok {
			continue
		}
		for _, ipv6 := range []bool{false, true} {
			t.Run(name+"/"+familyName(ipv6), func(t *testing.T) {
				t.Parallel()
				archive, err := txtar.ParseFile(file)
				if err != nil {
					t.Fatal(err)
				}
				runRelayed(t, archive, ipv6)
			})
		}
	}
}

func runRelayed(t *testing.T, archive *txtar.Archive, ipv6 bool) {
	t.Helper()
	options := ""
	if len(archive.Files) > 0 && archive.Files[0].Name == "options" {
		options, archive.Files = string(archive.Files[0].Data), archive.Files[1:]
	}
	w := newWorld(t, ipv6, options)
	w.relayed, w.given = true, map[netip.Addr]bool{}
	for i, node := range w.Nodes {
		w.planes[i] = startRelay(t, node)
	}
	fresh := true
	for _, f := range archive.Files {
		text := w.expand(string(f.Data))
		switch kind, step, _ := strings.Cut(f.Name, " "); kind {
		case "services":
			w.putServices(t, text)
		case "endpoints":
			w.putEndpoints(t, text)
		case "packets":
			for i := range w.nodes {
				change, _ := w.nodes[i].store.Take()
				update := Update{Delta: w.nodes[i].compiler.apply(change)}
				if fresh {
					update.Network, update.Complete = &w.network, true
				}
				if i == 0 {
					w.giveAddresses(t, update.Put)
				}
				if err := w.planes[i].Apply(update); err != nil {
					t.Fatal(err)
				}
			}
			fresh = false
			w.relayedPackets(t, step, text)
		}
	}
}

// giveAddresses puts those of Services onto node 0, and never takes them away.
func (w *world) giveAddresses(t *testing.T, services []*Service) {
	t.Helper()
	for _, s := range services {
		for _, p := range s.Ports {
			for _, f := range p.Frontends {
				if f.Addr.IsValid() && !w.given[f.Addr] {
					w.given[f.Addr] = true
					w.Nodes[0].Address(t, netip.PrefixFrom(f.Addr, f.Addr.BitLen()).String())
				}
			}
		}
	}
}

// startRelay runs one in a namespace until the test ends.
func startRelay(t *testing.T, h *netlab.Host) *Relay {
	t.Helper()
	p, err := relay.New(relay.Config{Within: func(f func()) { h.Do(t, f) }})
	if err != nil {
		t.Fatal(err)
	}
	r := NewRelay(p)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// relayedPackets takes the lines whose meaning is the same: whoever answers is asked by the node.
func (w *world) relayedPackets(t *testing.T, step, text string) {
	t.Helper()
	if step == "loopback" {
		return // in userspace NodePorts answer there, too
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") || w.notRelayed(line) {
			continue
		}
		ask, expected, _ := strings.Cut(line, " -> ")
		if want := strings.Fields(expected); want[0] != "refused" && want[0] != "silent" {
			always := ""
			if want[len(want)-1] == "always" {
				always = " always"
			}
			line = ask + " -> " + want[0] + " as anybody" + always
		}
		if err := w.packet(t, line); err != nil {
			t.Errorf("%s: %s: %v", step, line, err)
		}
	}
}

// notRelayed are questions that do not come to node 0's sockets: those of node 1 and its Pods, and
// of the second node's Pods, to an address that is node 0's.
func (w *world) notRelayed(line string) bool {
	if line == w.expand("client tcp $lb6 80 -> silent") {
		return true // nobody listens where there is no endpoint, so it is refused, source ranges or not
	}
	words := strings.Fields(line)
	to, err := netip.ParseAddr(words[2])
	nodes := err == nil && (to == w.Nodes[0].Addr(w.ipv6) || to == w.Nodes[1].Addr(w.ipv6))
	return !nodes && (words[0] == "node1" || strings.HasPrefix(words[0], "pod1-"))
}
