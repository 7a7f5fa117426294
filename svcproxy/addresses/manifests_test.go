package addresses

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// schema is as much of an OpenAPI schema as the test looks at.
type schema struct {
	Properties map[string]schema
	Items      *schema
	Default    any
	Enum       []string
	MinLength  int
	MaxItems   *int
	OneOf      []schema
}

func (s schema) at(path ...string) (schema, bool) {
	for _, p := range path {
		next, ok := s.Properties[p]
		if !ok {
			return schema{}, false
		}
		s = next
		if s.Items != nil {
			s = *s.Items
		}
	}
	return s, true
}

// defaults are those below s, by path.
func (s schema) defaults(path string, into map[string]any) map[string]any {
	if s.Default != nil {
		into[path] = s.Default
	}
	if s.Items != nil {
		s.Items.defaults(path+"[]", into)
	}
	for name, p := range s.Properties {
		p.defaults(strings.TrimPrefix(path+"."+name, "."), into)
	}
	return into
}

// expressions checks that each selector below s refuses what labels.Selector would: no two svcproxys that start at different times
// may have different opinions of a resource.
func (s schema) expressions(t *testing.T, path string) {
	t.Helper()
	if e, ok := s.Properties["matchExpressions"]; ok {
		if e.Items == nil || len(e.Items.OneOf) != 2 || !slices.Equal(e.Items.Properties["operator"].Enum, []string{"In", "NotIn", "Exists", "DoesNotExist"}) {
			t.Errorf("%s: what operators there are, and which of them need values, is not said", path)
		}
	}
	if s.Items != nil {
		s.Items.expressions(t, path+"[]")
	}
	for name, p := range s.Properties {
		p.expressions(t, path+"."+name)
	}
}

// Every field of MetalLB's, and so every field that is read, is in the CRD that is shipped: the API server drops what is not.
func TestShippedCRDs(t *testing.T) {
	text, err := os.ReadFile("../../manifests/install/loadbalancer/crds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string][][]string{
		"IPAddressPool": {
			{"addresses"},
			{"autoAssign"},
			{"avoidBuggyIPs"},
			{"serviceAllocation", "priority"},
			{"serviceAllocation", "namespaces"},
			{"serviceAllocation", "namespaceSelectors", "matchLabels"},
			{"serviceAllocation", "namespaceSelectors", "matchExpressions", "operator"},
			{"serviceAllocation", "serviceSelectors", "matchLabels"},
			{"serviceAllocation", "serviceSelectors", "matchExpressions", "values"},
		},
		"L2Advertisement": {
			{"ipAddressPools"},
			{"interfaces"},
			{"ipAddressPoolSelectors", "matchLabels"},
			{"nodeSelectors", "matchExpressions", "key"},
			{"serviceSelectors", "matchLabels"},
			{"serviceSelectors", "matchExpressions", "operator"},
		},
	}
	// MetalLB's own, which has no other: its controller reads what the API server fills in.
	defaults := map[string]map[string]any{"IPAddressPool": {"autoAssign": true, "avoidBuggyIPs": false}, "L2Advertisement": {}}
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var crd struct {
			Spec struct {
				Group    string
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Schema struct{ OpenAPIV3Schema schema }
				}
			}
		}
		if err := yaml.Unmarshal(doc, &crd); err != nil {
			t.Fatal(err)
		}
		kind := crd.Spec.Names.Kind
		if crd.Spec.Group != "metallb.io" || len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Name != "v1beta1" {
			t.Errorf("%s: group %s, versions %v", kind, crd.Spec.Group, crd.Spec.Versions)
			continue
		}
		for _, path := range fields[kind] {
			if _, ok := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.at(append([]string{"spec"}, path...)...); !ok {
				t.Errorf("%s has no field spec.%v", kind, path)
			}
		}
		spec, _ := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.at("spec")
		if diff := cmp.Diff(defaults[kind], spec.defaults("", map[string]any{})); diff != "" {
			t.Errorf("%s: defaults %s", kind, diff)
		}
		spec.expressions(t, kind)
		if at, ok := spec.at("serviceSelectors"); kind == KindL2Advertisement && (!ok || at.Properties == nil || *spec.Properties["serviceSelectors"].MaxItems != 0 || spec.Properties["interfaces"].Items.MinLength != 1) {
			t.Error("serviceSelectors, or interfaces without a name, are not refused")
		}
		delete(fields, kind)
	}
	for kind := range fields {
		t.Errorf("no CRD for %s", kind)
	}
}
