package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthserver "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// upstreamName is what the Service of webManifest is called in the cluster.
const upstreamName = "web.default.svc"

// forServer makes a certificate one of a server.
func forServer(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = names, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
}

// keyPEM is the private key of a certificate.
func keyPEM(t *testing.T, c tls.Certificate) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// secretOf is a Secret with these fields, each followed by its text.
func secretOf(name string, fields ...string) string {
	text := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: default}\nstringData:\n", name)
	for i := 0; i < len(fields); i += 2 {
		text += fmt.Sprintf("  %s: %q\n", fields[i], fields[i+1])
	}
	return text
}

// annotate gives the Ingress of a folder annotations of ingress-nginx.
func annotate(t *testing.T, dir string, annotations ...string) {
	t.Helper()
	var all []string
	for i := 0; i < len(annotations); i += 2 {
		all = append(all, fmt.Sprintf(`"nginx.ingress.kubernetes.io/%s": %q`, annotations[i], annotations[i+1]))
	}
	name := filepath.Join(dir, "web.yaml")
	const bare = "kind: Ingress\nmetadata: {name: web, namespace: default}"
	text := strings.Replace(read(t, name), bare, strings.TrimSuffix(bare, "}")+", annotations: {"+strings.Join(all, ", ")+"}}", 1)
	write(t, name, text)
}

// tlsBackend is an upstream of HTTPS with a certificate of ca, which asks for those of clients
// and looks at none.
func tlsBackend(t *testing.T, ca *issuer, serve http.HandlerFunc) *httptest.Server {
	t.Helper()
	b := httptest.NewUnstartedServer(serve)
	b.TLS = &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "backend", forServer(upstreamName))}, ClientAuth: tls.RequestClientCert}
	b.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are refused
	b.StartTLS()
	t.Cleanup(b.Close)
	return b
}

// grpcBackend is a server of grpc-go for health checks, with a certificate of ca.
func grpcBackend(t *testing.T, ca *issuer) *httptest.Server {
	t.Helper()
	creds := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{ca.issue(t, "backend", forServer(upstreamName))}})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(creds))
	grpc_health_v1.RegisterHealthServer(s, healthserver.NewServer())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln) // until it is stopped
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return &httptest.Server{Listener: ln}
}

// callHealth calls the health service of addr as host would be called, over TLS.
func callHealth(t *testing.T, addr, host string) error {
	t.Helper()
	creds := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, ServerName: host})
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds), grpc.WithAuthority(host), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, new(grpc_health_v1.HealthCheckRequest))
	if err == nil && r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("the answer is %v", r)
	}
	return err
}

// An Ingress whose Service speaks TLS, HTTP/1.1 or gRPC, verified and not.
func TestServeVerifiesUpstreams(t *testing.T) {
	ca, other := newIssuer(t), newIssuer(t)
	for _, tt := range []struct {
		name        string
		ca          *issuer
		annotations []string
		reason      string // in the access log, if it is refused
	}{
		{name: "off, other CA", ca: other},
		{name: "off, said so", ca: other, annotations: []string{"proxy-ssl-verify", "off"}},
		{name: "on", ca: ca, annotations: []string{"proxy-ssl-verify", "on"}},
		{name: "on, name given", ca: ca, annotations: []string{"proxy-ssl-verify", "on", "proxy-ssl-name", upstreamName, "proxy-ssl-server-name", "on"}},
		{name: "on, other CA", ca: other, annotations: []string{"proxy-ssl-verify", "on"}, reason: "certificate signed by unknown authority"},
		{name: "on, other name", ca: ca, annotations: []string{"proxy-ssl-verify", "on", "proxy-ssl-name", "other.example"}, reason: "not other.example"},
	} {
		secret := secretOf("upstream", "ca.crt", certPEM(tt.ca.cert))
		annotations := append([]string{"proxy-ssl-secret", "default/upstream"}, tt.annotations...)
		t.Run("HTTPS "+tt.name, func(t *testing.T) {
			dir := webFolder(t, "a.example", tlsBackend(t, ca, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
			annotate(t, dir, append(annotations, "backend-protocol", "HTTPS")...)
			write(t, filepath.Join(dir, "secret.yaml"), secret)
			s := start(t, "--manifests", dir)
			a := get(t, s.http, "http://a.example/")
			if tt.reason == "" && (a.code != 200 || a.body != "HTTP/1.1") || tt.reason != "" && a.code != 502 {
				t.Errorf("%d %q", a.code, a.body)
			}
			checkReason(t, s, tt.reason, "502")
		})
		t.Run("GRPCS "+tt.name, func(t *testing.T) {
			dir := webFolder(t, "a.example", grpcBackend(t, ca))
			annotate(t, dir, append(annotations, "backend-protocol", "GRPCS")...)
			write(t, filepath.Join(dir, "secret.yaml"), secret)
			s := start(t, "--manifests", dir)
			if err := callHealth(t, s.https, "a.example"); tt.reason == "" && err != nil || tt.reason != "" && status.Code(err) != codes.Unavailable {
				t.Error(err)
			}
			checkReason(t, s, tt.reason, "")
		})
	}
}

// checkReason ends s and looks for the reason of a failure in its access log.
func checkReason(t *testing.T, s *serving, reason, code string) {
	t.Helper()
	s.stop()
	s.exit(t)
	lines := s.stdout.String()
	if reason == "" && strings.Contains(lines, `"note"`) || !strings.Contains(lines, reason) || reason != "" && code != "" && !strings.Contains(lines, `"status":`+code) {
		t.Errorf("the log is %s", lines)
	}
}

// A new client certificate, and a new CA, count from the next connection on; no request meets
// an old one after that, and a request that is under way comes to its end.
func TestUpstreamSecretRotates(t *testing.T) {
	ca, next := newIssuer(t), newIssuer(t)
	began, release := make(chan struct{}, 1), make(chan struct{})
	backend := tlsBackend(t, ca, func(w http.ResponseWriter, r *http.Request) {
		who := r.TLS.PeerCertificates[0].Subject.CommonName
		if r.URL.Path == "/slow" {
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
			began <- struct{}{}
			<-release
		}
		fmt.Fprint(w, who)
	})
	t.Cleanup(func() { close(release) }) // before the backend is closed, which waits for it
	secret := func(who string, ca *issuer) string {
		c := ca.issue(t, who, nil)
		return secretOf("upstream", "tls.crt", certPEM(c.Leaf), "tls.key", keyPEM(t, c), "ca.crt", certPEM(ca.cert))
	}
	dir := webFolder(t, "a.example", backend)
	annotate(t, dir, "backend-protocol", "HTTPS", "proxy-ssl-secret", "default/upstream", "proxy-ssl-verify", "on")
	file := filepath.Join(dir, "secret.yaml")
	write(t, file, secret("old", ca))
	s := start(t, "--access-log=off", "--manifests", dir)
	for range 3 { // the connection is kept
		if a := get(t, s.http, "http://a.example/"); a.code != 200 || a.body != "old" {
			t.Fatalf("before: %d %q", a.code, a.body)
		}
	}
	slow := make(chan answer, 1)
	go func() {
		a, err := tryGet(t, s.http, "http://a.example/slow")
		if err != nil {
			a.body = err.Error()
		}
		slow <- a
	}()
	<-began
	write(t, file, secret("new", ca))
	eventually(t, "the new certificate is shown", func() error {
		if a, err := tryGet(t, s.http, "http://a.example/"); err != nil || a.code != 200 || a.body != "new" {
			return fmt.Errorf("%d %q %w", a.code, a.body, err)
		}
		return nil
	})
	for range 10 {
		if a := get(t, s.http, "http://a.example/"); a.code != 200 || a.body != "new" {
			t.Errorf("after: %d %q", a.code, a.body)
		}
	}
	release <- struct{}{}
	if a := <-slow; a.code != 200 || a.body != "old" {
		t.Errorf("the request that was under way: %d %q", a.code, a.body)
	}
	write(t, file, secret("new", next)) // a CA that has not signed the backend's certificate
	eventually(t, "the new CA counts", func() error {
		if a, err := tryGet(t, s.http, "http://a.example/"); err != nil || a.code != 502 {
			return fmt.Errorf("%d %q %w", a.code, a.body, err)
		}
		return nil
	})
	if a := get(t, s.http, "http://a.example/"); a.code != 502 {
		t.Errorf("a connection of the old CA is used: %d", a.code)
	}
}

// What is not there yet closes the route, says so, and opens it when it comes.
func TestSecretsArriveLate(t *testing.T) {
	ca := newIssuer(t)
	for _, tt := range []struct {
		name        string
		annotations []string
	}{
		{
			name:        "proxy-ssl-secret",
			annotations: []string{"backend-protocol", "HTTPS", "proxy-ssl-verify", "on", "proxy-ssl-secret", "default/late"},
		},
		{
			name:        "auth-tls-secret",
			annotations: []string{"backend-protocol", "HTTPS", "auth-tls-secret", "default/late"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := webFolder(t, "a.example", tlsBackend(t, ca, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "in") }))
			annotate(t, dir, tt.annotations...)
			s := start(t, "--access-log=off", "--manifests", dir)
			client := ca.issue(t, "client", nil)
			ask := func(cert *tls.Certificate) answer { return askAs(t, s.https, "a.example", "a.example", cert, nil) }
			if a := ask(&client); a.code != 503 {
				t.Errorf("without the Secret: %d %q", a.code, a.body)
			}
			report := get(t, s.admin, "http://admin/api/v1/problems").body
			if !strings.Contains(report, "default/late") || !strings.Contains(report, "does not exist") || !strings.Contains(report, "503") {
				t.Errorf("the report is %s", report)
			}
			write(t, filepath.Join(dir, "secret.yaml"), secretOf("late", "ca.crt", certPEM(ca.cert)))
			eventually(t, "it is served", func() error {
				if a := ask(nil); tt.name == "auth-tls-secret" && a.code == 200 {
					t.Fatalf("it is open: %q", a.body)
				}
				if a := ask(&client); a.code != 200 || a.body != "in" {
					return fmt.Errorf("%d %q", a.code, a.body)
				}
				return nil
			})
			if a := get(t, s.admin, "http://admin/api/v1/problems"); strings.Contains(a.body, "default/late") {
				t.Errorf("it is still reported: %s", a.body)
			}
		})
	}
}
