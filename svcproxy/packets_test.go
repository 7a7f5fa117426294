package svcproxy

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// TestPackets sends real packets through a real kernel: each file of testdata/packets is a case,
// and is run in both IP families. testdata/packets/README.md says how to read one.
func TestPackets(t *testing.T) {
	files, err := filepath.Glob("testdata/packets/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		for _, ipv6 := range []bool{false, true} {
			name := strings.TrimSuffix(filepath.Base(file), ".txtar") + "/" + familyName(ipv6)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				archive, err := txtar.ParseFile(file)
				if err != nil {
					t.Fatal(err)
				}
				runPackets(t, archive, ipv6)
			})
		}
	}
}

func familyName(ipv6 bool) string {
	if ipv6 {
		return "IPv6"
	}
	return "IPv4"
}

// world is a lab whose two nodes run the compiler and the kernel's data plane.
type world struct {
	*netlab.Lab
	ipv6    bool
	network Network
	rules   Rules
	objects map[manifests.Ref]struct{}
	nodes   [2]worldNode
	// relayed: in userspace, where node 0 has the addresses that were given to it.
	relayed bool
	planes  [2]*Relay
	given   map[netip.Addr]bool
	// remembered is the server that userspace said the client goes to again.
	remembered string
}

type worldNode struct {
	store    *manifests.Store
	compiler *compiler
	plane    *nft.Plane
	fresh    bool
	snapshot *nft.Snapshot // since the last sync, once it was asked for
}

const podsPerNode = 2

func newWorld(t testing.TB, ipv6 bool, options string) *world {
	t.Helper()
	w := &world{Lab: netlab.New(t, podsPerNode), ipv6: ipv6, objects: map[manifests.Ref]struct{}{}}
	w.options(t, options)
	for i, node := range w.Nodes {
		for _, p := range w.Pods[i] {
			p.Serve(t, 8080)
			p.Serve(t, 8081)
		}
		n := &w.nodes[i]
		n.store, n.fresh = manifests.NewStore(), true
		n.store.Open()
		rules := w.rules
		rules.NodeName = node.Name
		n.compiler = newCompiler(rules)
		n.compiler.setPlace(here{place{node.Name, fmt.Sprintf("zone%d", i)}, []netip.Addr{node.IPv4, node.IPv6}, nil})
		var err error
		node.Do(t, func() { n.plane, err = nft.New(nft.Config{}) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.plane.Close)
	}
	return w
}

// options are lines like flags, without the dashes.
func (w *world) options(t testing.TB, text string) {
	t.Helper()
	for line := range strings.Lines(w.expand(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "":
		case "cluster-cidr":
			w.network.ClusterCIDRs = append(w.network.ClusterCIDRs, netip.MustParsePrefix(value))
		case "service-cidr":
			w.network.ServiceCIDRs = append(w.network.ServiceCIDRs, netip.MustParsePrefix(value))
		case "nodeport-addresses":
			w.network.NodePortAddresses = append(w.network.NodePortAddresses, netip.MustParsePrefix(value))
		case "masquerade-all":
			w.network.MasqueradeAll = true
		case "no-external-ips":
			w.rules.NoExternalIPs = true
		default:
			t.Fatalf("option %q", line)
		}
	}
}

// expand replaces what differs between the families.
func (w *world) expand(text string) string {
	pairs := map[string][2]string{
		"family": {"IPv4", "IPv6"}, "pods": {"10.180.0.0/16", "fd00:180::/32"}, "services": {"172.30.0.0/16", "fd00:30::/64"},
		"bits": {"32", "128"}, "lan": {"192.168.0.0/24", "fd00:168::/64"}, "everybody": {"0.0.0.0/0", "::/0"},
		"otherrange": {"fd00:99::/64", "10.99.0.0/16"}, "loopback": {"127.0.0.1", "::1"},
		"elsewhere": {"198.51.100.0/24", "fd00:99::/64"},
	}
	for i := range 10 {
		pairs[fmt.Sprintf("vip%d", i)] = [2]string{fmt.Sprintf("172.30.0.%d", i), fmt.Sprintf("fd00:30::%d", i)}
		pairs[fmt.Sprintf("lb%d", i)] = [2]string{fmt.Sprintf("192.0.2.%d", i), fmt.Sprintf("fd00:2::%d", i)}
	}
	for name, h := range w.hosts() {
		pairs[name] = [2]string{h.IPv4.String(), h.IPv6.String()}
	}
	names := slices.Sorted(maps.Keys(pairs))
	slices.Reverse(names) // longer ones first
	for _, name := range names {
		p := pairs[name]
		with := p[0]
		if w.ipv6 {
			with = p[1]
		}
		text = strings.ReplaceAll(text, "$"+name, with)
	}
	return text
}

func (w *world) hosts() map[string]*netlab.Host {
	all := map[string]*netlab.Host{}
	if w.Lab == nil {
		return all
	}
	for _, h := range slices.Concat([]*netlab.Host{w.Client}, w.Nodes[:], w.Pods[0], w.Pods[1]) {
		all[h.Name] = h
	}
	return all
}

// runPackets takes the sections of a case one after the other.
func runPackets(t *testing.T, archive *txtar.Archive, ipv6 bool) {
	t.Helper()
	options := ""
	if len(archive.Files) > 0 && archive.Files[0].Name == "options" {
		options, archive.Files = string(archive.Files[0].Data), archive.Files[1:]
	}
	w := newWorld(t, ipv6, options)
	for _, f := range archive.Files {
		text := w.expand(string(f.Data))
		switch kind, step, _ := strings.Cut(f.Name, " "); kind {
		case "services":
			w.putServices(t, text)
		case "endpoints":
			w.putEndpoints(t, text)
		case "packets":
			w.sync(t)
			w.packets(t, step, text)
		default:
			t.Fatalf("section %q", f.Name)
		}
	}
}

// putServices puts Services; one that is only "delete: name" is deleted.
func (w *world) putServices(t testing.TB, text string) {
	t.Helper()
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var s struct {
			corev1.Service `json:",inline"`
			Delete         string `json:"delete"`
		}
		if err := yaml.UnmarshalStrict([]byte(doc), &s); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		for i := range w.nodes {
			if s.Delete != "" {
				w.nodes[i].store.Delete(manifests.Ref{Kind: manifests.KindService, Namespace: "default", Name: s.Delete})
				continue
			}
			service := s.DeepCopy()
			service.Namespace = "default"
			w.nodes[i].store.Put(service)
		}
	}
}

// putEndpoints reads lines "service[:port name][@slice] number[/protocol] endpoint[,condition]...".
func (w *world) putEndpoints(t testing.TB, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		slice := w.slice(t, words)
		for i := range w.nodes {
			w.nodes[i].store.Put(slice.DeepCopy())
		}
	}
}

func (w *world) slice(t testing.TB, words []string) *discoveryv1.EndpointSlice {
	t.Helper()
	of, _, _ := strings.Cut(words[0], "@")
	service, portName, _ := strings.Cut(of, ":")
	number, protocol, ok := strings.Cut(words[1], "/")
	if !ok {
		protocol = "TCP"
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	port, proto := int32(n), corev1.Protocol(protocol)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: strings.NewReplacer(":", "-", "@", "-").Replace(words[0] + "-" + protocol),
			Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressType(familyName(w.ipv6)),
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &proto}},
	}
	for _, word := range words[2:] {
		slice.Endpoints = append(slice.Endpoints, w.endpoint(t, word))
	}
	return slice
}

func (w *world) endpoint(t testing.TB, word string) discoveryv1.Endpoint {
	t.Helper()
	parts := strings.Split(word, ",")
	h := w.hosts()[parts[0]]
	if h == nil {
		t.Fatalf("endpoint %q", word)
	}
	node := "node" + strings.TrimPrefix(h.Name, "pod")[:1]
	e := discoveryv1.Endpoint{Addresses: []string{h.Addr(w.ipv6).String()}, NodeName: &node}
	yes, no := true, false
	for _, p := range parts[1:] {
		switch key, value, _ := strings.Cut(p, "="); key {
		case "unready":
			e.Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &no}
		case "terminating":
			e.Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
		case "node":
			e.Hints = &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: value}}, ForZones: []discoveryv1.ForZone{{Name: "zone" + strings.TrimPrefix(value, "node")}}}
		case "zone":
			e.Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: value}}}
		case "nodeless":
			e.NodeName = nil
		default:
			t.Fatalf("endpoint %q", word)
		}
	}
	return e
}

// sync makes both kernels what the objects say.
func (w *world) sync(t testing.TB) {
	t.Helper()
	for i := range w.nodes {
		n := &w.nodes[i]
		change, ok := n.store.Take()
		if !ok {
			t.Fatal("the store is closed")
		}
		changes := kernelChanges(n.compiler.apply(change))
		if n.fresh {
			changes.Node, changes.Complete, n.fresh = w.network.kernelNode(), true, false
		}
		if err := n.plane.Apply(changes); err != nil {
			t.Fatal(err)
		}
		n.snapshot = nil
	}
}

// packets reads lines "host protocol address port -> expected".
func (w *world) packets(t *testing.T, step, text string) {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := w.packet(t, line); err != nil {
			t.Errorf("%s: %s: %v", step, line, err)
		}
	}
}

func (w *world) packet(t *testing.T, line string) error {
	t.Helper()
	ask, expected, ok := strings.Cut(line, " -> ")
	words, want := strings.Fields(ask), strings.Fields(expected)
	if !ok || len(words) != 4 || len(want) == 0 {
		return errors.New("want: host protocol address port -> expected")
	}
	from := w.hosts()[words[0]]
	if words[1] == "ping" {
		return w.ping(t, from, netip.MustParseAddr(words[2]), want[0])
	}
	to, err := netip.ParseAddrPort(netJoin(words[2], words[3]))
	if err != nil || from == nil {
		return fmt.Errorf("host or address: %w", err)
	}
	if err := w.explains(t, from, words[1], to, want); err != nil {
		return err
	}
	switch want[0] {
	case "refused":
		return wantError(t, from, words[1], to, netlab.ErrRefused)
	case "silent":
		return wantError(t, from, words[1], to, netlab.ErrSilent)
	}
	as := []string{from.Addr(w.ipv6).String()}
	if len(want) > 2 && want[1] == "as" {
		as = w.addresses(want[2])
	}
	if w.remembered != "" {
		want[0] = w.remembered
	}
	return wantServers(t, from, words[1], to, strings.Split(want[0], ","), as, want[len(want)-1] == "always")
}

func netJoin(addr, port string) string {
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return addr + ":" + port
}

func wantError(t *testing.T, from *netlab.Host, network string, to netip.AddrPort, want error) error {
	t.Helper()
	ask := from.AskPatiently
	if errors.Is(want, netlab.ErrSilent) {
		ask = from.Ask
	}
	if got, err := ask(t, network, to); !errors.Is(err, want) {
		return fmt.Errorf("got %v, %w", got, err)
	}
	return nil
}

// addresses are one, or with "masqueraded0" all that node 0 has.
func (w *world) addresses(text string) []string {
	n, ok := strings.CutPrefix(text, "masqueraded")
	switch {
	case text == "anybody":
		return nil
	case !ok:
		return []string{text}
	case w.ipv6:
		return []string{"fd00:168::1" + n, netip.MustParseAddr("fd00:180:" + n + "::1").String()}
	}
	return []string{"192.168.0.1" + n, "10.180." + n + ".1"}
}

// wantServers asks until all of the servers have answered, and wants no others. always wants one
// and the same every time.
func wantServers(t *testing.T, from *netlab.Host, network string, to netip.AddrPort, servers, as []string, always bool) error {
	t.Helper()
	seen := map[string]int{}
	for range 200 {
		got, err := from.AskPatiently(t, network, to)
		if err != nil {
			return err
		}
		if !slices.Contains(servers, got.Server) {
			return fmt.Errorf("%s answered", got.Server)
		}
		if as != nil && !slices.Contains(as, got.Client.String()) {
			return fmt.Errorf("%s was asked by %v", got.Server, got.Client)
		}
		seen[got.Server]++
		n := 0
		for _, count := range seen {
			n += count
		}
		switch {
		case always && len(seen) > 1:
			return fmt.Errorf("not always the same: %v", seen)
		case always && n == 15, !always && len(seen) == len(servers) && n >= 3:
			return nil
		}
	}
	return fmt.Errorf("only %v answered", seen)
}
