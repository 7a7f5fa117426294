package manifests

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

var update = flag.Bool("update", false, "rewrite the expected part of golden files")

// TestPodSlices runs testdata/podslices/*.txtar: objects.yaml in, the slices as text out.
func TestPodSlices(t *testing.T) {
	cases, err := filepath.Glob("testdata/podslices/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, name := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			content, err := decodeFile("objects.yaml", archive.Files[0].Data)
			if err != nil || len(content.problems) > 0 {
				t.Fatalf("%v %v", err, content.problems)
			}
			got := dumpSlices(assemble(map[string]*file{"objects.yaml": {content: content}}, nil))
			if *update {
				archive.Files[1].Data = []byte(got)
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			equal(t, archive.Files[1].Name, got, string(archive.Files[1].Data))
		})
	}
}

func dumpSlices(v view) string {
	var b strings.Builder
	for _, ref := range sortedRefs(v.objects) {
		s, ok := v.objects[ref].(*discoveryv1.EndpointSlice)
		if !ok {
			continue
		}
		_, headless := s.Labels[corev1.IsHeadlessService]
		fmt.Fprintf(&b, "%s/%s %s headless=%v", s.Namespace, s.Labels[discoveryv1.LabelServiceName], s.AddressType, headless)
		for _, p := range s.Ports {
			fmt.Fprintf(&b, " %q=%d/%s", *p.Name, *p.Port, *p.Protocol)
		}
		b.WriteByte('\n')
		for _, e := range s.Endpoints {
			fmt.Fprintf(&b, "  %s %v", e.TargetRef.Name, e.Addresses)
			for _, c := range []struct {
				name string
				on   *bool
			}{{"ready", e.Conditions.Ready}, {"serving", e.Conditions.Serving}, {"terminating", e.Conditions.Terminating}} {
				if *c.on {
					b.WriteString(" " + c.name)
				}
			}
			if e.Hostname != nil {
				b.WriteString(" hostname=" + *e.Hostname)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}
