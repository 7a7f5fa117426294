package addresses

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite the golden cases in testdata")

// Each case is what people write, step by step, and what they get. The steps of one case are
// the same objects as time goes by: 1.yaml, 2.yaml and so on, each with what changed. A step
// named "N restart.yaml" is read by a new leader, who knows the API server alone.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runCase(t, archive)
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(got))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// runCase gives the archive as it should be.
func runCase(t *testing.T, archive *txtar.Archive) *txtar.Archive {
	t.Helper()
	out := &txtar.Archive{Comment: archive.Comment}
	c := newGoldenCase()
	for _, f := range archive.Files {
		name, isInput := strings.CutSuffix(f.Name, ".yaml")
		if !isInput {
			continue
		}
		if strings.HasSuffix(name, "restart") {
			c.restart()
		}
		out.Files = append(out.Files, f, txtar.File{Name: name, Data: []byte(c.step(t, f.Data))})
	}
	return out
}

type goldenCase struct {
	allocator  *Allocator
	pools      map[string]IPAddressPool
	services   map[string]*corev1.Service
	namespaces map[string]map[string]string
	order      []string
	flags      []string
}

func newGoldenCase() *goldenCase {
	return &goldenCase{
		allocator: &Allocator{Class: "portico.dev/l2", Default: true},
		pools:     map[string]IPAddressPool{}, services: map[string]*corev1.Service{}, namespaces: map[string]map[string]string{},
	}
}

func (c *goldenCase) labels(namespace string) map[string]string { return c.namespaces[namespace] }

func (c *goldenCase) restart() {
	c.allocator = &Allocator{Class: "portico.dev/l2", Default: true}
	pools, _ := NewPools(slices.Collect(maps.Values(c.pools)), c.flags)
	c.allocator.SetPools(pools)
	c.allocator.Begin(slices.Collect(maps.Values(c.services)), c.labels)
}

func (c *goldenCase) step(t *testing.T, text []byte) string {
	t.Helper()
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		c.read(t, doc)
	}
	pools, problems := NewPools(slices.Collect(maps.Values(c.pools)), c.flags)
	c.allocator.SetPools(pools)
	var out strings.Builder
	for _, key := range c.order {
		svc := c.services[key]
		if svc == nil {
			continue
		}
		d := c.allocator.Allocate(svc, c.labels(svc.Namespace))
		if !d.foreign {
			svc.Status.LoadBalancer.Ingress = nil
		}
		for _, addr := range d.Addresses {
			svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: addr.String()})
		}
		if len(d.Addresses) > 0 { // as the Controller does
			metav1.SetMetaDataAnnotation(&svc.ObjectMeta, AnnotationFrom, d.Pool)
		}
		svc.Status.Conditions = []metav1.Condition{*conditionOf(svc, d)}
		fmt.Fprintf(&out, "%s: %s\n", key, describe(d))
		problems = append(problems, d.Problems...)
	}
	for _, p := range problems {
		fmt.Fprintf(&out, "! %s\n", p)
	}
	return out.String()
}

func describe(d Decision) string {
	switch {
	case d.foreign:
		return "left alone"
	case len(d.Addresses) == 0:
		return "-"
	case d.Pool == "":
		return join(d.Addresses) + " of no pool"
	}
	return join(d.Addresses) + " of " + d.Pool
}

// read takes in one document. "delete: true" beside the metadata takes the object away.
func (c *goldenCase) read(t *testing.T, doc []byte) {
	t.Helper()
	var head struct {
		Kind   string
		Delete bool
		Flags  []string
	}
	mustYAML(t, doc, &head)
	switch head.Kind {
	case "IPAddressPool":
		var p IPAddressPool
		mustYAML(t, doc, &p)
		delete(c.pools, p.Name)
		if !head.Delete {
			c.pools[p.Name] = p
		}
	case "Namespace":
		var n corev1.Namespace
		mustYAML(t, doc, &n)
		c.namespaces[n.Name] = n.Labels
	case "Service":
		c.readService(t, doc, head.Delete)
	case "Flags":
		c.flags = head.Flags
	default:
		t.Fatalf("what is this? %s", doc)
	}
}

func (c *goldenCase) readService(t *testing.T, doc []byte, gone bool) {
	t.Helper()
	var s corev1.Service
	mustYAML(t, doc, &s)
	if s.Namespace == "" {
		s.Namespace = "default"
	}
	if s.Spec.Type == "" {
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
	}
	if len(s.Spec.IPFamilies) == 0 {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	if len(s.Spec.Ports) == 0 {
		s.Spec.Ports = []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}
	}
	key := s.Namespace + "/" + s.Name
	old := c.services[key]
	switch {
	case gone:
		delete(c.services, key)
		c.allocator.Release(nameOf(&s))
		return
	case old == nil:
		c.order = append(c.order, key)
	default:
		s.Status.Conditions = old.Status.Conditions
		if len(s.Status.LoadBalancer.Ingress) == 0 {
			s.Status = old.Status
		}
		if from, given := old.Annotations[AnnotationFrom]; given {
			metav1.SetMetaDataAnnotation(&s.ObjectMeta, AnnotationFrom, from)
		}
	}
	c.services[key] = &s
}

func mustYAML(t *testing.T, doc []byte, into any) {
	t.Helper()
	if err := yaml.Unmarshal(doc, into); err != nil {
		t.Fatalf("%v in\n%s", err, doc)
	}
}

// Ten thousand Services are no dearer, each, than a hundred; the last ones get nothing at no cost.
func TestAllocateScales(t *testing.T) {
	pools, problems := NewPools([]IPAddressPool{{Spec: IPAddressPoolSpec{Addresses: []string{"10.0.0.0/19"}}}}, nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	a := &Allocator{Default: true}
	a.SetPools(pools)
	asked := 0
	seen := map[netip.Addr]bool{}
	for i := range 10000 {
		svc := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
		svc.Namespace, svc.Name = "default", fmt.Sprint(i)
		d := a.Allocate(svc, nil)
		if len(d.Addresses) == 0 {
			asked++
			continue
		}
		if seen[d.Addresses[0]] {
			t.Fatalf("%s twice", d.Addresses[0])
		}
		seen[d.Addresses[0]] = true
	}
	if len(seen) != 1<<13 || asked != 10000-1<<13 {
		t.Errorf("%d got an address, %d none", len(seen), asked)
	}
	last := netip.MustParseAddr("10.0.31.255")
	looked := 0
	for range 1000 {
		pools[0].free(false, func(netip.Addr) bool { looked++; return true })
	}
	if looked > 0 || !seen[last] {
		t.Errorf("a full pool is searched: %d addresses looked at", looked)
	}
}

func BenchmarkAllocate(b *testing.B) {
	pools, _ := NewPools([]IPAddressPool{{Spec: IPAddressPoolSpec{Addresses: []string{"10.0.0.0/8"}}}}, nil)
	a := &Allocator{Default: true}
	a.SetPools(pools)
	svc := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		svc.Name = fmt.Sprint(i % 10000)
		a.Allocate(svc, nil)
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24", "192.0.2.1-192.0.2.9", "2001:db8::/120", "192.0.2.1", "0.0.0.0/0", "a-b", "::ffff:1.2.3.4/100"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRange(s)
		if err != nil {
			return
		}
		if r.last.Less(r.first) || r.first.Is4() != r.last.Is4() || !r.contains(r.first) || !r.contains(r.last) {
			t.Errorf("%q became %v", s, r)
		}
		again, err := parseRange(r.String())
		if err != nil || again != r {
			t.Errorf("%q became %v and that %v, %v", s, r, again, err)
		}
	})
}
