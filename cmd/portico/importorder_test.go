package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/portico-ingress/portico"

// importOrder says for each package what of ours it may import: what stands below it. A
// package that is not here has no place in the house yet.
var importOrder = map[string][]string{
	"router/engine":     {},
	"certs":             {},
	"manifests":         {},
	"svcproxy/nft":      {"svcproxy/netlab"},
	"svcproxy/relay":    {"svcproxy/netlab"},
	"svcproxy/announce": {},
	"svcproxy/outlier":  {},
	"svcproxy/handover": {"svcproxy/netlab"},
	"bench":             {},
	"svcproxy/netlab":   {}, // of tests only

	"router/filter": {"router/engine"},
	"router":        {"router/engine"},

	"ingress/annotation": {"router", "router/engine", "router/filter", "manifests"},

	"ingress":            {"router", "router/engine", "router/filter", "certs", "manifests", "ingress/annotation"},
	"svcproxy/addresses": {"manifests"},
	"svcproxy/balancer":  {"manifests", "svcproxy/addresses", "svcproxy/announce"},
	"svcproxy":           {"manifests", "svcproxy/nft", "svcproxy/relay", "svcproxy/announce", "svcproxy/handover", "svcproxy/outlier", "svcproxy/addresses", "svcproxy/netlab"},

	"cmd/portico": {"router", "router/engine", "router/filter", "certs", "manifests", "ingress", "ingress/annotation", "svcproxy", "svcproxy/nft", "svcproxy/relay", "svcproxy/announce", "svcproxy/handover", "svcproxy/outlier", "svcproxy/addresses", "svcproxy/balancer", "svcproxy/netlab"},
}

// withoutKubernetes are the packages that a request goes through.
var withoutKubernetes = []string{"router", "router/engine", "router/filter", "certs"}

// listedPackage is what go list tells of a package.
type listedPackage struct {
	ImportPath   string
	Name         string
	Doc          string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
}

func (p listedPackage) room() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func listPackages(t *testing.T) []listedPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	var all []listedPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImportOrder(t *testing.T) {
	for _, p := range listPackages(t) {
		allowed, ok := importOrder[p.room()]
		if !ok {
			t.Errorf("package %s has no place in the order of imports; give it one in importorder_test.go", p.room())
			continue
		}
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			room, ours := strings.CutPrefix(imported, module+"/")
			if ours && room != p.room() && !slices.Contains(allowed, room) {
				t.Errorf("package %s imports %s; it may import %q", p.room(), room, allowed)
			}
		}
	}
}

func TestRequestsMeetNoKubernetes(t *testing.T) {
	for _, p := range listPackages(t) {
		if !slices.Contains(withoutKubernetes, p.room()) {
			continue
		}
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, "k8s.io/") || strings.HasPrefix(dep, "sigs.k8s.io/") {
				t.Errorf("package %s depends on %s", p.room(), dep)
			}
		}
	}
}

// A package is named after what it is about.
func TestPackageNames(t *testing.T) {
	for _, p := range listPackages(t) {
		switch name := path.Base(p.ImportPath); name {
		case "util", "utils", "common", "helpers", "misc", "base", "shared", "types":
			t.Errorf("package %s: %s is no name for a package", p.room(), name)
		}
	}
}
