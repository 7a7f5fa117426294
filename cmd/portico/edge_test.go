package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// issuer is a CA.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	ca := &issuer{}
	made := ca.issue(t, "the CA", func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		c.ExtKeyUsage = nil // it signs for all purposes
	})
	ca.cert, ca.key = made.Leaf, made.PrivateKey.(*ecdsa.PrivateKey)
	return ca
}

func (ca *issuer) issue(t *testing.T, name string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: []string{"Shop, Inc."}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	parent, by := ca.cert, ca.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func certPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

const caSecret = `
---
apiVersion: v1
kind: Secret
metadata: {name: ca, namespace: default}
stringData:
  ca.crt: |
    %s
`

// mtlsFolder is a folder of manifests for a host whose clients need a certificate of ca.
func mtlsFolder(t *testing.T, ca *issuer, backend *httptest.Server, annotations ...string) (dir string) {
	t.Helper()
	dir = webFolder(t, "a.example", backend)
	name := filepath.Join(dir, "web.yaml")
	all := `"nginx.ingress.kubernetes.io/auth-tls-secret": "default/ca"`
	for i := 0; i < len(annotations); i += 2 {
		all += fmt.Sprintf(`, "nginx.ingress.kubernetes.io/%s": "%s"`, annotations[i], annotations[i+1])
	}
	manifest := strings.Replace(read(t, name), "{name: web, namespace: default}", "{name: web, namespace: default, annotations: {"+all+"}}", 1)
	write(t, name, manifest+fmt.Sprintf(caSecret, strings.ReplaceAll(certPEM(ca.cert), "\n", "\n    ")))
	return dir
}

// askAs asks for a host over TLS, as a client with a server name and perhaps a certificate.
func askAs(t *testing.T, addr, sni, host string, cert *tls.Certificate, header http.Header) answer {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, ServerName: sni}
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	maps.Copy(req.Header, header)
	c := &http.Client{Transport: tr, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{r.StatusCode, string(b), r.Header, r.TLS}
}

// seen answers with the fields about client certificates that it gets.
func seen(w http.ResponseWriter, r *http.Request) {
	for _, name := range []string{"ssl-client-verify", "ssl-client-subject-dn", "ssl-client-issuer-dn", "ssl-client-cert"} {
		fmt.Fprintf(w, "%s=%s\n", name, strings.Join(r.Header.Values(name), "|"))
	}
}

func TestClientCertificates(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(seen))
	defer backend.Close()
	ca, other := newIssuer(t), newIssuer(t)
	good, bad := ca.issue(t, "client", nil), other.issue(t, "client", nil)
	old := ca.issue(t, "client", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = c.NotBefore.Add(-time.Hour), time.Now().Add(-time.Minute)
	})
	names := "ssl-client-subject-dn=CN=client,O=Shop\\, Inc.\nssl-client-issuer-dn=CN=the CA,O=Shop\\, Inc.\n"
	forged := http.Header{"Ssl-Client-Verify": {"SUCCESS"}, "Ssl-Client-Subject-Dn": {"CN=root"}, "Ssl-Client-Cert": {"x"}}
	type ask struct {
		what      string
		sni, host string
		cert      *tls.Certificate
		code      int
		body      string // the beginning
	}
	for _, tt := range []struct {
		name        string
		annotations []string
		asks        []ask
	}{
		{"on", nil, []ask{
			{"good", "a.example", "a.example", &good, 200, "ssl-client-verify=SUCCESS\n" + names + "ssl-client-cert=\n"},
			{"upper case", "A.Example", "A.EXAMPLE", &good, 200, "ssl-client-verify=SUCCESS\n"},
			{"none", "a.example", "a.example", nil, 400, "No required"},
			{"of another CA", "a.example", "a.example", &bad, 400, ""},
			{"expired", "a.example", "a.example", &old, 400, ""},
			{"no server name", "", "a.example", &good, 400, "No required"},
			{"for another host", "other.example", "a.example", &good, 421, ""},
		}},
		{"optional", []string{"auth-tls-verify-client", "optional"}, []ask{
			{"good", "a.example", "a.example", &good, 200, "ssl-client-verify=SUCCESS\n"},
			{"none", "a.example", "a.example", nil, 200, "ssl-client-verify=NONE\nssl-client-subject-dn=\n"},
			{"of another CA", "a.example", "a.example", &bad, 400, ""},
			{"for another host", "other.example", "a.example", nil, 421, ""},
		}},
		{"optional_no_ca", []string{"auth-tls-verify-client", "optional_no_ca"}, []ask{
			{"of another CA", "a.example", "a.example", &bad, 200, "ssl-client-verify=FAILED:unable to verify the first certificate\n" + names},
			{"expired", "a.example", "a.example", &old, 400, ""},
		}},
		{"off", []string{"auth-tls-verify-client", "off"}, []ask{
			{"none", "a.example", "a.example", nil, 200, "ssl-client-verify=\n"},
			{"good", "a.example", "a.example", &good, 200, "ssl-client-verify=\n"},
		}},
		{"match-cn", []string{"auth-tls-match-cn", "CN=(client|x)"}, []ask{{"good", "a.example", "a.example", &good, 200, ""}}},
		{"match-cn not", []string{"auth-tls-match-cn", "CN=clien"}, []ask{{"good", "a.example", "a.example", &good, 403, ""}}},
		{"pass", []string{"auth-tls-pass-certificate-to-upstream", "true"}, []ask{
			{"good", "a.example", "a.example", &good, 200, "ssl-client-verify=SUCCESS\n" + names + "ssl-client-cert=-----BEGIN%20CERTIFICATE-----%0A"},
		}},
		{"error page", []string{"auth-tls-error-page", "https://a.example/why"}, []ask{{"none", "a.example", "a.example", nil, 302, ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t, "--access-log=off", "--manifests", mtlsFolder(t, ca, backend, tt.annotations...))
			for _, q := range tt.asks {
				a := askAs(t, s.https, q.sni, q.host, q.cert, forged)
				if a.code != q.code || !strings.HasPrefix(a.body, q.body) {
					t.Errorf("%s: %d %q, want %d %q", q.what, a.code, a.body, q.code, q.body)
				}
				switch {
				case q.code == 302 && a.header.Get("Location") != "https://a.example/why":
					t.Errorf("it leads to %q", a.header.Get("Location"))
				case tt.name == "pass":
					_, value, _ := strings.Cut(a.body, "ssl-client-cert=")
					if got, err := url.QueryUnescape(strings.TrimSpace(value)); got != certPEM(good.Leaf) || err != nil {
						t.Errorf("the certificate came as %q, %v", value, err)
					}
				}
			}
			if tt.name == "on" {
				if a := askAs(t, s.https, "a.example", "a.example", &good, nil); a.tls.NegotiatedProtocol != "h2" {
					t.Errorf("it was asked over %q", a.tls.NegotiatedProtocol)
				}
				if a := get(t, s.http, "http://a.example/"); a.code != 400 {
					t.Errorf("over plain HTTP: %d", a.code)
				}
			}
		})
	}
}

// A new CA holds for connections that are open: they are judged anew.
func TestClientCertificatesFollowTheirSecret(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(seen))
	defer backend.Close()
	ca, next := newIssuer(t), newIssuer(t)
	good := ca.issue(t, "client", nil)
	dir := mtlsFolder(t, ca, backend)
	s := start(t, "--access-log=off", "--manifests", dir)
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", Certificates: []tls.Certificate{good}}}
	defer tr.CloseIdleConnections()
	ask := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.https+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "a.example"
		r, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
		return r.StatusCode
	}
	if code := ask(); code != 200 {
		t.Fatalf("before: %d", code)
	}
	name := filepath.Join(dir, "web.yaml")
	indent := func(c *x509.Certificate) string { return strings.ReplaceAll(certPEM(c), "\n", "\n    ") }
	write(t, name, strings.Replace(read(t, name), indent(ca.cert), indent(next.cert), 1))
	eventually(t, "the client is refused", func() error {
		if code := ask(); code != 400 {
			return fmt.Errorf("status %d", code)
		}
		return nil
	})
}

func TestPassthrough(t *testing.T) {
	backend := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.TLS.ServerName) }))
	defer backend.Close()
	dir := webFolder(t, "a.example", backend)
	name := filepath.Join(dir, "web.yaml")
	write(t, name, strings.Replace(read(t, name), "{name: web, namespace: default}", `{name: web, namespace: default, annotations: {nginx.ingress.kubernetes.io/ssl-passthrough: "true"}}`, 1))
	s := start(t, "--proxy-protocol-from=192.0.2.0/24", "--manifests", dir)
	a := askAs(t, s.https, "a.example", "a.example", nil, nil)
	if a.code != 200 || a.body != "a.example" || !bytes.Equal(a.tls.PeerCertificates[0].Raw, backend.Certificate().Raw) {
		t.Errorf("passed through: %d %q %s", a.code, a.body, a.tls.PeerCertificates[0].Subject)
	}
	if a := askAs(t, s.https, "b.example", "a.example", nil, nil); a.code != 421 {
		t.Errorf("on a connection for another host: %d %q", a.code, a.body)
	}
	if a := get(t, s.http, "http://a.example/x"); a.code != 308 || a.header.Get("Location") != "https://a.example/x" {
		t.Errorf("plain HTTP: %d %v", a.code, a.header)
	}
	if a := get(t, s.admin, "http://admin/metrics"); !strings.Contains(a.body, "portico_tls_passthrough_connections_total 1") {
		t.Error("it is not counted")
	}
	s.stop()
	s.exit(t)
	if log := s.stdout.String(); !strings.Contains(log, `"host":"a.example","protocol":"TLS","status":200`) {
		t.Errorf("the log: %s", log)
	}
}

// The access log has the client that a load balancer names.
func TestProxyProtocolFlag(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("X-Forwarded-For")) }))
	defer backend.Close()
	s := start(t, "--proxy-protocol-from=127.0.0.1,::1", "--manifests", webFolder(t, "a.example", backend))
	conn, err := net.Dial("tcp", s.http)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, "PROXY TCP4 192.0.2.1 198.51.100.2 55555 80\r\nGET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
	got, err := io.ReadAll(conn)
	if err != nil || !strings.HasSuffix(string(got), "192.0.2.1") {
		t.Errorf("%q, %v", got, err)
	}
	s.stop()
	s.exit(t)
	if log := s.stdout.String(); !strings.Contains(log, `"client":"192.0.2.1","client_port":55555`) {
		t.Errorf("the log: %s", log)
	}
}
