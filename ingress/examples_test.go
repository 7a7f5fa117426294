package ingress

import (
	"context"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/portico-ingress/portico/manifests"
)

// What is in the repository for people to begin with is served without a problem, but for
// the Secret that they are told to make, and the name that nobody has.
func TestDemoAndExamples(t *testing.T) {
	for name, folder := range map[string]fs.FS{"demo": manifests.Demo(), "examples": os.DirFS("../manifests/examples")} {
		t.Run(name, func(t *testing.T) {
			store := manifests.NewStore()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- manifests.NewFiles(manifests.FilesConfig{FS: folder}).Run(ctx, store) }()
			<-store.Changed()
			change, _ := store.Take()
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			cfg := testConfig()
			cfg.ImplicitClass = true // as for every folder
			c := testCompiler(cfg)
			settle(c, change, nil)
			if len(Routes(c.table)) == 0 {
				t.Error("nothing is served")
			}
			all, _ := c.problems.all()
			for _, p := range all {
				if p.reason != reasonSecret && p.reason != reasonExternalName {
					t.Errorf("%v", p.Problem)
				}
			}
			for line := range strings.Lines(Dump(c.table)) {
				if strings.Contains(line, " 503 ") {
					t.Error(line)
				}
			}
		})
	}
}
