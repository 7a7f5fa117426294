package ingress

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden cases in testdata")

// Each case is Kubernetes YAML in, and what is served and said about it out.
func TestGolden(t *testing.T) {
	for _, file := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, sections, config := readCase(t, file)
			c := testCompiler(config.config())
			settle(c, takeYAML(t, sections["objects.yaml"]), config.Names)
			got := map[string]string{
				"table":        Dump(c.table),
				"problems":     dumpProblems(c),
				"certificates": dumpCertificates(c),
			}
			if got["certificates"] == "self-signed ECDSA: (default)\n" {
				delete(got, "certificates")
			}
			if *update {
				rewrite(t, file, archive, got)
				return
			}
			for _, name := range []string{"table", "problems", "certificates"} {
				if diff := cmp.Diff(sections[name], got[name]); diff != "" {
					t.Errorf("%s:\n%s", name, diff)
				}
			}
		})
	}
}

func rewrite(t *testing.T, file string, archive *txtar.Archive, got map[string]string) {
	t.Helper()
	out := &txtar.Archive{Comment: archive.Comment}
	for _, f := range archive.Files {
		if f.Name == "config" || f.Name == "objects.yaml" {
			out.Files = append(out.Files, f)
		}
	}
	for _, name := range []string{"table", "problems", "certificates"} {
		if got[name] != "" {
			out.Files = append(out.Files, txtar.File{Name: name, Data: []byte(got[name])})
		}
	}
	if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
		t.Fatal(err)
	}
}
