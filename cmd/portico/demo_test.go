package main

import (
	"bytes"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// readDemo starts a demo and decodes its folder.
func readDemo(t *testing.T) (*demo, []runtime.Object) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	d, err := startDemo(t.Context(), testURLs)
	t.Cleanup(d.stop)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(d.dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var all []runtime.Object
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, decodeFile(t, name, b)...)
	}
	return d, all
}

// The slices that the process writes take the place of those of the repository, one for each
// backend, and nothing else differs.
func TestDemoEndpoints(t *testing.T) {
	d, objects := readDemo(t)
	ports := map[string]int32{}
	for _, obj := range objects {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok {
			if s.Labels[discoveryv1.LabelServiceName] != demoService || s.Namespace != demoNamespace || s.Endpoints[0].Addresses[0] != "127.0.0.1" {
				t.Errorf("slice %v", s)
			}
			ports[s.Name] = *s.Ports[0].Port
		}
	}
	if len(ports) != 2 || ports["echo-1"] != d.echos[0].port() || ports["echo-2"] != d.echos[1].port() {
		t.Errorf("ports of slices %v", ports)
	}
	for _, obj := range decodeFolder(t, "demo") {
		if s, ok := obj.(*discoveryv1.EndpointSlice); ok && ports[s.Name] == 0 {
			t.Errorf("slice %s of the repository has nothing in its place", s.Name)
		}
	}
}

func TestDemoCertificate(t *testing.T) {
	_, objects := readDemo(t)
	var secret *corev1.Secret
	var wanted string
	for _, obj := range objects {
		switch v := obj.(type) {
		case *corev1.Secret:
			secret = v
		case *networkingv1.Ingress:
			if len(v.Spec.TLS) > 0 {
				wanted = v.Spec.TLS[0].SecretName
			}
		}
	}
	if secret == nil || secret.Name != wanted || secret.Type != corev1.SecretTypeTLS {
		t.Fatalf("secret %v, the Ingress wants %q", secret, wanted)
	}
	pair, err := tls.X509KeyPair([]byte(secret.StringData["tls.crt"]), []byte(secret.StringData["tls.key"]))
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Leaf.VerifyHostname(demoSecureHost); err != nil {
		t.Error(err)
	}
}

func TestDemoStops(t *testing.T) {
	d, _ := readDemo(t)
	d.stop()
	if _, err := os.Stat(d.dir); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
	if c, err := net.Dial("tcp", d.echos[0].addr.String()); err == nil {
		_ = c.Close()
		t.Error("a backend still listens")
	}
}

func TestDemoTour(t *testing.T) {
	d := &demo{dir: "/tmp/x", urls: testURLs}
	var b bytes.Buffer
	d.tour(&b)
	for _, want := range []string{
		"\n  curl http://demo.localhost:8080/echo/hello\n",
		"\n  curl --insecure https://secure.localhost:8443/echo\n",
		"\n  curl 'http://demo.localhost:8080/whoami?[1-6]'\n",
		"\n  http://demo.localhost:8080/\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in %s", want, b.String())
		}
	}
}
