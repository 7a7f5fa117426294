package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"
)

const secretManifest = `
---
apiVersion: v1
kind: Secret
metadata: {name: %[2]s, namespace: %[1]s}
type: kubernetes.io/tls
data:
  tls.crt: %[3]s
  tls.key: %[4]s
`

// secret is a Secret with a new certificate for names.
func secret(t *testing.T, namespace, name string, names ...string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return fmt.Sprintf(secretManifest, namespace, name, encode("CERTIFICATE", der), encode("PRIVATE KEY", raw))
}

const tenantManifest = `
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %[2]s, namespace: %[1]s, annotations: {portico.dev/ssl-redirect: "false"}}
spec:
  ingressClassName: portico
  rules: [{host: %[3]q, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
  tls: [%[4]s]
`

const tenantService = `
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: %[1]s}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: %[1]s, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "", port: %[2]s}]
endpoints: [{addresses: [127.0.0.1]}]
`

// A connection may ask for the hosts of its certificate, and not for those that have
// another one: what one tenant's certificate covers is not the tenant's.
func TestRequestsOnAConnectionForAnotherHost(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	defer backend.Close()
	_, port, err := net.SplitHostPort(backend.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tlsFor := func(host, secret string) string { return fmt.Sprintf("{hosts: [%s], secretName: %s}", host, secret) }
	yaml := secret(t, "a", "wild", "*.w.test", "w.test") + secret(t, "b", "own", "own.w.test") + secret(t, "a", "many", "many.test", "free.test", "plain.test")
	for _, ingress := range [][4]any{
		{"a", "x", "x.w.test", tlsFor("'*.w.test'", "wild")},
		{"a", "wild", "*.w.test", tlsFor("'*.w.test'", "wild")},
		{"a", "w", "w.test", tlsFor("w.test", "wild")},
		{"b", "own", "own.w.test", tlsFor("own.w.test", "own")},
		{"b", "bare", "bare.w.test", ""}, // of another tenant than the wildcard's, without a certificate
		{"a", "many", "many.test", tlsFor("many.test", "many")},
		{"b", "plain", "plain.test", ""},
		{"c", "quiet", "quiet.test", ""},
	} {
		yaml += fmt.Sprintf(tenantManifest, ingress[:]...)
	}
	for _, ns := range []string{"a", "b", "c"} {
		yaml += fmt.Sprintf(tenantService, ns, port)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "all.yaml"), yaml)
	s := start(t, "--manifests", dir, "--access-log=off")
	tests := []struct {
		sni, host string
		want      int
	}{
		{"x.w.test", "x.w.test", 200},
		{"x.w.test", "X.W.test:443", 200},
		{"x.w.test", "y.w.test", 200},
		{"x.w.test", "w.test", 200},
		{"w.test", "x.w.test", 200},
		{"x.w.test", "own.w.test", 421},
		{"own.w.test", "x.w.test", 421},
		{"x.w.test", "bare.w.test", 421},
		{"bare.w.test", "x.w.test", 421},
		{"bare.w.test", "bare.w.test", 200},
		{"bare.w.test", "quiet.test", 200}, // both have the default certificate
		{"quiet.test", "nobody.test", 404},
		{"nobody.test", "quiet.test", 200},
		{"nobody.test", "own.w.test", 421},
		{"many.test", "plain.test", 200}, // covered by the certificate, and has none of its own
		{"many.test", "quiet.test", 421},
		{"many.test", "nobody.test", 421}, // not 404: whether there is such a host is not for this connection
		{"", "own.w.test", 200},           // no name: health checks, curl -k https://192.0.2.1 -H 'Host: ...'
		{"", "nobody.test", 404},
		{"own.w.test", "own.w.test", 200},
	}
	for _, protocol := range []string{"http/1.1", "h2"} {
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/%s asks for %s", protocol, tt.sni, tt.host), func(t *testing.T) {
				conn, err := tls.Dial("tcp", s.https, &tls.Config{ServerName: tt.sni, InsecureSkipVerify: true, NextProtos: []string{protocol}})
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				ask := oneConnection(t, conn, protocol)
				if got := ask(tt.host); got != tt.want {
					t.Errorf("status %d, want %d", got, tt.want)
				}
				if tt.want == 421 && tt.sni != "nobody.test" { // and the connection is as good as it was
					if got := ask(tt.sni); got != 200 {
						t.Errorf("then, for its own host: status %d", got)
					}
				}
			})
		}
	}
}

// oneConnection asks for hosts on conn.
func oneConnection(t *testing.T, conn net.Conn, protocol string) func(host string) int {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	trip := func(r *http.Request) (*http.Response, error) {
		if err := r.Write(conn); err != nil {
			return nil, err
		}
		return http.ReadResponse(bufio.NewReader(conn), r)
	}
	if protocol == "h2" {
		tr := &http.Transport{
			DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			Protocols:      new(http.Protocols),
		}
		tr.Protocols.SetHTTP2(true)
		cc, err := tr.NewClientConn(t.Context(), "https", "one.test:443")
		if err != nil {
			t.Fatal(err)
		}
		trip = cc.RoundTrip
	}
	return func(host string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := trip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Error(err)
		}
		return resp.StatusCode
	}
}
