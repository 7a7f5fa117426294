package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// h2spec is pinned in the go.mod of e2e, which keeps it out of the product's.
func buildH2spec(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "h2spec")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "github.com/summerwind/h2spec/cmd/h2spec")
	build.Dir = filepath.Join("..", "..", "e2e")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// TestH2spec runs all of h2spec, the strict cases too.
func TestH2spec(t *testing.T) {
	bin := buildH2spec(t)
	s := start(t, "--demo", "--h2c", "--access-log=off")
	for name, args := range map[string][]string{
		"TLS": {"--tls", "--insecure", "--host", "127.0.0.1", "--port", portOf(t, s.https)},
		"h2c": {"--host", "127.0.0.1", "--port", portOf(t, s.http)},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), bin, append(args, "--strict", "--timeout", "5")...).CombinedOutput()
			_, failures, _ := strings.Cut(string(out), "Failures:")
			if err != nil || !strings.Contains(string(out), ", 0 failed") {
				t.Errorf("%v: %s", err, failures)
			}
		})
	}
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestHTTP2IsSpokenAsTheFlagsSay(t *testing.T) {
	tests := []struct {
		flags       []string
		https, http int // major version of the answer to one that would have HTTP/2; 0: none
	}{
		{nil, 2, 0},
		{[]string{"--http2=false", "--h2c"}, 1, 2},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.flags, " "), func(t *testing.T) {
			s := start(t, append([]string{"--demo", "--access-log=off"}, tt.flags...)...)
			if got := spoken(t, "https://", s.https); got != tt.https {
				t.Errorf("HTTPS: version %d, want %d", got, tt.https)
			}
			if got := spoken(t, "http://", s.http); got != tt.http {
				t.Errorf("HTTP: version %d, want %d", got, tt.http)
			}
		})
	}
}

func spoken(t *testing.T, scheme, addr string) int {
	t.Helper()
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Protocols:       new(http.Protocols),
	}
	tr.Protocols.SetHTTP2(true)
	if scheme == "https://" {
		tr.Protocols.SetHTTP1(true)
	} else {
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"demo.localhost/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.ProtoMajor
}
