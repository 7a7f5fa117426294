package binaries

import (
	"os"
	"strings"
	"testing"
)

// The stamped versions must be the ones the modules pin, or the programs would
// tell the wrong one.
func TestVersionsMatchPins(t *testing.T) {
	for file, want := range map[string]string{
		"kubernetes/go.mod": "k8s.io/kubernetes " + KubernetesVersion,
		"containerd/go.mod": "github.com/containerd/containerd/v2 " + ContainerdVersion,
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), want+"\n") && !strings.Contains(string(b), want+" // indirect\n") {
			t.Errorf("%s does not require %s", file, want)
		}
	}
}

func TestPathKnowsEveryProgram(t *testing.T) {
	s := &Set{Kubernetes: "/k", Containerd: "/c", CoreDNS: "/d", Clients: "/g"}
	for name, want := range map[string]string{
		"etcd":    "/k/etcd",
		"kubectl": "/k/kubectl",
		"ctr":     "/c/ctr",
		"bridge":  "/c/bridge",
		"coredns": "/d/coredns",
		"grpcurl": "/g/grpcurl",
		"nothing": "",
	} {
		if got := s.Path(name); got != want {
			t.Errorf("Path(%q) = %q, want %q", name, got, want)
		}
	}
}
