package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/e2e/suite"
)

// The same folders applied to the cluster and served from where they are.
func TestAFolderMeansTheSameInAClusterAndWithoutOne(t *testing.T) {
	t.Parallel()
	e := portico(t)
	for folder, namespace := range map[string]string{"demo": "demo", "examples": "examples"} {
		t.Run(folder, func(t *testing.T) {
			dir, err := filepath.Abs(filepath.Join(repository, "manifests", folder))
			if err != nil {
				t.Fatal(err)
			}
			// The Namespace is among them, and may be there from an earlier run.
			kubectl(t, "delete", "--ignore-not-found", "-f", dir, "--timeout=120s")
			kubectl(t, "apply", "-f", filepath.Join(dir, "namespace.yaml"))
			kubectl(t, "apply", "-f", dir)
			t.Cleanup(func() {
				if _, err := up.Kubectl(context.Background(), "delete", "-f", dir, "--wait=false"); err != nil {
					t.Error(err)
				}
			})
			e.settle(t)
			l := startLocal(t, "--manifests", dir)
			l.waitReady(t)

			inFolder := func(ctx context.Context) (string, string, error) {
				return described(ctx, l.adminJSON, namespace)
			}
			suite.Wait(t, 20*time.Second, "the same from the folder and from the cluster", func(ctx context.Context) string {
				wantRoutes, wantProblems, err := inFolder(ctx)
				if err != nil {
					return err.Error()
				}
				for _, r := range e.all() {
					routes, problems, err := described(ctx, r.adminJSON, namespace)
					if err != nil {
						return err.Error()
					}
					if routes != wantRoutes {
						return fmt.Sprintf("routes in the folder:\n%s\nin %s:\n%s", wantRoutes, r.pod, routes)
					}
					if problems != wantProblems {
						return fmt.Sprintf("problems in the folder:\n%s\nin %s:\n%s", wantProblems, r.pod, problems)
					}
				}
				return ""
			})
			routes, problems, err := inFolder(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(routes, namespace+"/") {
				t.Errorf("there are no routes:\n%s", routes)
			}
			t.Logf("%d lines of routes and endpoints, %d lines of problems", strings.Count(routes, "\n"), strings.Count(problems, "\n"))
			l.stop(t)
		})
	}
}

// described is what a Portico serves of a namespace: its routes, with their
// endpoints, and its problems. The generation is left out, and with it the kind
// of trouble that a name has: the machine's DNS server is not the cluster's.
func described(ctx context.Context, admin func(context.Context, string, any) error, namespace string) (routes, problems string, err error) {
	var table tableView
	if err := admin(ctx, "/api/v1/routes", &table); err != nil {
		return "", "", err
	}
	var backends backendsView
	if err := admin(ctx, "/api/v1/backends", &backends); err != nil {
		return "", "", err
	}
	var all problemsView
	if err := admin(ctx, "/api/v1/problems", &all); err != nil {
		return "", "", err
	}
	backends.Backends = slices.DeleteFunc(backends.Backends, func(b backendView) bool { return !strings.HasPrefix(b.Name, namespace+"/") })
	backends.sort()
	all.Problems = slices.DeleteFunc(all.Problems, func(p problemView) bool { return p.Object.Namespace != namespace })
	for i := range all.Problems {
		p := &all.Problems[i]
		if before, _, ok := strings.Cut(p.Text, "cannot be resolved"); ok {
			p.Text = before + "cannot be resolved"
		}
	}
	a, err := json.MarshalIndent([]any{table.of(namespace), backends}, "", "  ")
	if err != nil {
		return "", "", err
	}
	b, err := json.MarshalIndent(all, "", "  ")
	return string(a), string(b), err
}
