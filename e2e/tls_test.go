package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/suite"
)

// month is longer than Portico warns of a certificate's end.
const month = 30 * 24 * time.Hour

func netJoin(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// withTLS adds a tls section to an Ingress.
func withTLS(ing *networkingv1.Ingress, secret string, hosts ...string) *networkingv1.Ingress {
	ing.Spec.TLS = append(ing.Spec.TLS, networkingv1.IngressTLS{Hosts: hosts, SecretName: secret})
	return ing
}

func TestTheCertificateIsThatOfTheHost(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	ca := newAuthority(t)
	d := ns + ".test"
	exact := ca.issue(t, "ECDSA", month, "exact."+d)
	wildcard := ca.issue(t, "ECDSA", month, "*."+d)
	ec := ca.issue(t, "ECDSA", month, "both."+d)
	rsa := ca.issue(t, "RSA", month, "both."+d)
	onlyRSA := ca.issue(t, "RSA", month, "rsa."+d)
	for name, c := range map[string]issued{"exact": exact, "wildcard": wildcard, "ec": ec, "rsa": rsa, "only-rsa": onlyRSA} {
		putSecret(t, ns, name, c.crt, c.key)
	}
	ing := newIngress("tls",
		rule{host: "exact." + d, path: "/", backend: "blue"},
		rule{host: "*." + d, path: "/", backend: "green"},
		rule{host: "both." + d, path: "/", backend: "red"},
		rule{host: "rsa." + d, path: "/", backend: "red"},
	)
	withTLS(withTLS(withTLS(ing, "exact", "exact."+d), "wildcard", "*."+d), "only-rsa", "rsa."+d)
	withTLS(withTLS(ing, "rsa", "both."+d), "ec", "both."+d)
	createIngress(t, ns, ing)
	e.settle(t)
	e.waitCertificate(t, "exact."+d, exact.serial)
	e.waitCertificate(t, "x."+d, wildcard.serial)
	e.waitCertificate(t, "both."+d, ec.serial)
	e.waitCertificate(t, "rsa."+d, onlyRSA.serial)
	fallback := e.defaultSerials(t)

	rsaOnly := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, tt := range []struct {
		name   string
		config *tls.Config
		want   []string // serial numbers
	}{
		{"the exact name beats the wildcard", &tls.Config{ServerName: "exact." + d}, []string{exact.serial}},
		{"in upper case, too", &tls.Config{ServerName: "EXACT." + strings.ToUpper(d)}, []string{exact.serial}},
		{"the wildcard", &tls.Config{ServerName: "any." + d}, []string{wildcard.serial}},
		{"the default one for two labels", &tls.Config{ServerName: "a.b." + d}, fallback},
		{"the default one for the wildcard's domain", &tls.Config{ServerName: d}, fallback},
		{"the default one for an unknown name", &tls.Config{ServerName: "nobody-has.test"}, fallback},
		{"the default one without a name", &tls.Config{}, fallback},
		{"ECDSA for a client that can", &tls.Config{ServerName: "both." + d}, []string{ec.serial}},
		{"ECDSA with TLS 1.2", &tls.Config{ServerName: "both." + d, MaxVersion: tls.VersionTLS12}, []string{ec.serial}},
		{"RSA for a client that can do no other", &tls.Config{ServerName: "both." + d, MaxVersion: tls.VersionTLS12, CipherSuites: rsaOnly}, []string{rsa.serial}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range e.all() {
				state, err := e.handshake(t.Context(), tt.config)
				if err != nil {
					t.Fatal(err)
				}
				if got := state.PeerCertificates[0].SerialNumber.Text(16); !slices.Contains(tt.want, got) {
					t.Errorf("got the certificate %s for %v, want %v", got, state.PeerCertificates[0].DNSNames, tt.want)
				}
			}
		})
	}

	for _, tt := range []struct {
		name, host string
		args       []string
		version    string // that curl used for HTTP
		want       string
	}{
		{"curl trusts it", "exact." + d, nil, "HTTP/2", "blue"},
		{"curl trusts the wildcard", "any." + d, nil, "HTTP/2", "green"},
		{"TLS 1.2", "exact." + d, []string{"--tls-max", "1.2"}, "HTTP/2", "blue"},
		{"TLS 1.3", "exact." + d, []string{"--tlsv1.3"}, "HTTP/2", "blue"},
		{"RSA by TLS 1.2", "both." + d, []string{"--tls-max", "1.2", "--ciphers", "ECDHE-RSA-AES128-GCM-SHA256"}, "HTTP/2", "red"},
		{"a client that wants HTTP/1.1", "exact." + d, []string{"--http1.1"}, "HTTP/1.1", "blue"},
		{"a client without ALPN", "exact." + d, []string{"--no-alpn"}, "HTTP/1.1", "blue"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := e.ask(t.Context(), "https://"+tt.host+"/", append(tt.args, "--cacert", ca.file)...)
			if a.by() != tt.want || a.proto != tt.version {
				t.Errorf("answered by %s with %s, want %s with %s\n%s", a.by(), a.proto, tt.want, tt.version, a)
			}
			if proto := strings.Join(a.echo.Headers["X-Forwarded-Proto"], ","); proto != "https" {
				t.Errorf("X-Forwarded-Proto is %q, want https", proto)
			}
		})
	}
	t.Run("no TLS 1.1", func(t *testing.T) {
		_, err := e.handshake(t.Context(), &tls.Config{ServerName: "exact." + d, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
		if err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("got %v, want an alert about the version", err)
		}
	})
	for _, proto := range []string{"h2", "http/1.1"} {
		t.Run("ALPN says "+proto, func(t *testing.T) {
			state, err := e.handshake(t.Context(), &tls.Config{ServerName: "exact." + d, NextProtos: []string{proto}})
			if err != nil || state.NegotiatedProtocol != proto {
				t.Errorf("got %q, %v", state.NegotiatedProtocol, err)
			}
		})
	}
}

// defaultSerials are the serial numbers of the replicas' default certificates.
func (e *edge) defaultSerials(t *testing.T) []string {
	t.Helper()
	var serials []string
	for range 2 * len(e.all()) {
		state, err := e.handshake(t.Context(), &tls.Config{ServerName: "default.invalid"})
		if err != nil {
			t.Fatal(err)
		}
		serials = append(serials, state.PeerCertificates[0].SerialNumber.Text(16))
	}
	return serials
}

func TestACertificateThatIsMissingOrWrongIsAProblemAndTheDefaultOneServed(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	ca := newAuthority(t)
	d := ns + ".test"
	good := func(names ...string) issued { return ca.issue(t, "ECDSA", month, names...) }
	fallback := e.defaultSerials(t)

	opaque := good("opaque." + d)
	if _, err := client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "opaque"}, Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{"tls.crt": opaque.crt, "tls.key": opaque.key},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	garbage, mixed, other := good("garbage."+d), good("mixed."+d), good("elsewhere.test")
	putSecret(t, ns, "garbage", []byte("this is no certificate"), garbage.key)
	putSecret(t, ns, "mixed", mixed.crt, good("mixed."+d).key)
	putSecret(t, ns, "other", other.crt, other.key)
	fine := good("fine." + d)
	putSecret(t, ns, "fine", fine.crt, fine.key)

	cases := []struct{ name, reason, problem string }{
		{"missing", "SecretMissing", "does not exist"},
		{"opaque", "BadCertificate", `has type "Opaque"`},
		{"garbage", "BadCertificate", "cannot be used"},
		{"mixed", "BadCertificate", "cannot be used"},
		{"other", "BadCertificate", "not for other." + d},
	}
	createIngress(t, ns, withTLS(newIngress("fine", rule{host: "fine." + d, path: "/", backend: "blue"}), "fine", "fine."+d))
	for _, tt := range cases {
		host := tt.name + "." + d
		createIngress(t, ns, withTLS(newIngress(tt.name, rule{host: host, path: "/", backend: "blue"}), tt.name, host))
	}
	e.settle(t)
	e.waitCertificate(t, "fine."+d, fine.serial)
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			host := tt.name + "." + d
			e.waitProblem(t, "Ingress", ns, tt.name, tt.problem)
			waitEvent(t, "Ingress", ns, tt.name, tt.reason)
			state, err := e.handshake(t.Context(), &tls.Config{ServerName: host})
			if err != nil {
				t.Fatal(err)
			}
			if got := state.PeerCertificates[0]; !slices.Contains(fallback, got.SerialNumber.Text(16)) {
				t.Errorf("got the certificate for %v, want the default one", got.DNSNames)
			}
			e.mustBeAnsweredBy(t, "blue", "https://"+host+"/", "--insecure")
			if a := e.ask(t.Context(), "https://"+host+"/", "--cacert", ca.file); a.err == nil {
				t.Errorf("curl trusts it\n%s", a)
			}
		})
	}
	t.Run("until it is there", func(t *testing.T) {
		late := good("missing." + d)
		putSecret(t, ns, "missing", late.crt, late.key)
		e.waitCertificate(t, "missing."+d, late.serial)
		e.waitNoProblem(t, "Ingress", ns, "missing")
	})
	t.Run("again when it is broken, and when it is gone", func(t *testing.T) {
		putSecret(t, ns, "missing", []byte("broken"), []byte("broken"))
		e.waitProblem(t, "Ingress", ns, "missing", "cannot be used")
		if err := client.CoreV1().Secrets(ns).Delete(t.Context(), "missing", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		e.waitProblem(t, "Ingress", ns, "missing", "does not exist")
		e.mustBeAnsweredBy(t, "blue", "https://missing."+d+"/", "--insecure")
	})
	t.Run("while the good one stays", func(t *testing.T) {
		e.waitNoProblem(t, "Ingress", ns, "fine")
		e.mustBeAnsweredBy(t, "blue", "https://fine."+d+"/", "--cacert", ca.file)
	})
}

// The Secret is there before the Ingress, so nothing is ever missing.
func TestACertificateThatIsThereIsNeverSaidToBeMissing(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	ca := newAuthority(t)
	host := ns + ".test"
	c := ca.issue(t, "ECDSA", month, host)
	putSecret(t, ns, "tls", c.crt, c.key)
	e.settle(t)
	createIngress(t, ns, withTLS(newIngress("tls", rule{host: host, path: "/", backend: "blue"}), "tls", host))
	e.waitCertificate(t, host, c.serial)
	// An Event of another Ingress, made later, comes after all those of this one.
	createIngress(t, ns, newIngress("later", rule{host: "later." + host, path: "/", backend: "missing"}))
	waitEvent(t, "Ingress", ns, "later", "ServiceUnusable")
	list, err := client.EventsV1().Events(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, ev := range list.Items {
		if ev.Regarding.Name == "tls" {
			t.Errorf("Event %s: %s", ev.Reason, ev.Note)
		}
	}
	e.waitNoProblem(t, "Ingress", ns, "tls")
}

func TestPlainHTTPIsSentToHTTPSWhereThereIsTLS(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	ca := newAuthority(t)
	d := ns + ".test"
	c := ca.issue(t, "ECDSA", month, "*."+d)
	putSecret(t, ns, "tls", c.crt, c.key)
	off := withTLS(newIngress("off", rule{host: "off." + d, path: "/", backend: "blue"}), "tls", "off."+d)
	off.Annotations = map[string]string{"portico.dev/ssl-redirect": "false"}
	createIngress(t, ns, off)
	alias := withTLS(newIngress("alias", rule{host: "alias." + d, path: "/", backend: "blue"}), "tls", "alias."+d)
	alias.Annotations = map[string]string{"nginx.ingress.kubernetes.io/ssl-redirect": "false"}
	createIngress(t, ns, alias)
	createIngress(t, ns, withTLS(newIngress("on", rule{host: "on." + d, path: "/", backend: "blue"}), "tls", "on."+d))
	createIngress(t, ns, newIngress("plain", rule{host: "plain." + d, path: "/", backend: "blue"}))
	e.settle(t)
	e.waitAnsweredBy(t, "blue", "https://on."+d+"/", "--cacert", ca.file)
	for _, tt := range []struct{ name, url, location string }{
		{"a host with TLS", "http://on." + d + "/", "https://on." + d + "/"},
		{"with its path and query", "http://on." + d + "/a/b?c=d&e=%20f", "https://on." + d + "/a/b?c=d&e=%20f"},
		{"a host without TLS", "http://plain." + d + "/", ""},
		{"a host with TLS whose annotation says no", "http://off." + d + "/", ""},
		{"a host with TLS whose annotation of ingress-nginx says no", "http://alias." + d + "/", ""},
		{"a host with TLS asked by HTTPS", "https://on." + d + "/", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := e.ask(t.Context(), tt.url, "--cacert", ca.file)
			want := "blue"
			if tt.location != "" {
				want = "308"
			}
			if a.by() != want || a.head.Get("Location") != tt.location {
				t.Errorf("answered by %s and sent to %q, want %s and %q\n%s", a.by(), a.head.Get("Location"), want, tt.location, a)
			}
		})
	}
	t.Run("and a POST stays a POST", func(t *testing.T) {
		host := "on." + d
		a := askVia(t.Context(), fmt.Sprintf("%s:80:%s:%d", host, e.next(), e.http), "http://"+host+"/", "--cacert", ca.file,
			"--location", "--data", "x=1", "--connect-to", fmt.Sprintf("%s:443:%s:%d", host, e.next(), e.https))
		if a.by() != "blue" || a.echo.Method != "POST" || a.echo.BodyLength != 3 {
			t.Errorf("want the POST at blue\n%s", a)
		}
	})
	t.Run("until the annotation says no", func(t *testing.T) {
		patchIngress(t, ns, "on", `{"metadata":{"annotations":{"portico.dev/ssl-redirect":"false"}}}`)
		e.waitAnsweredBy(t, "blue", "http://on."+d+"/")
	})
}

// Connections made before a rotation go on with the certificate they have.
func TestARotatedCertificateIsServedAtOnce(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	ca := newAuthority(t)
	host := ns + ".test"
	first := ca.issue(t, "ECDSA", month, host)
	putSecret(t, ns, "tls", first.crt, first.key)
	createIngress(t, ns, withTLS(newIngress("tls", rule{host: host, path: "/", backend: "blue"}), "tls", host))
	e.waitCertificate(t, host, first.serial)

	node := up.NodeIP(e.all()[0].node).String()
	kept, err := up.DialClient(t.Context(), "tcp", netJoin(node, e.https))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = kept.Close() }()
	conn := tls.Client(kept, &tls.Config{ServerName: host, RootCAs: ca.pool})
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		next := ca.issue(t, []string{"RSA", "ECDSA"}[i%2], month, host)
		start := time.Now()
		putSecret(t, ns, "tls", next.crt, next.key)
		suite.Wait(t, 10*time.Second, "new certificate", func(ctx context.Context) string {
			state, err := handshakeAt(ctx, node, e.https, &tls.Config{ServerName: host})
			if err != nil {
				return err.Error()
			}
			if state.PeerCertificates[0].SerialNumber.Text(16) != next.serial {
				return "still the old one"
			}
			return ""
		})
		t.Logf("rotation %d is served after %s", i+1, time.Since(start).Round(time.Millisecond))
		e.waitCertificate(t, host, next.serial)
		if _, err := fmt.Fprintf(conn, "HEAD / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		if n, err := conn.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") {
			t.Fatalf("on the connection from before: %q, %v", buf[:n], err)
		}
	}
}

// A session that was made with one replica is resumed by the other: they share the keys of
// tickets.
func TestASessionResumesAtTheOtherReplica(t *testing.T) {
	t.Parallel()
	e := portico(t)
	host, ca := secureHost(t, e, newNamespace(t))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			config := &tls.Config{ServerName: host, RootCAs: ca.pool, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
			// Twice around, so that each has resumed what another has begun.
			for i := range 2*len(e.all()) + 1 {
				node := up.NodeIP(e.all()[i%len(e.all())].node).String()
				resumed, err := askOverTLS(t.Context(), netJoin(node, e.https), host, config)
				if err != nil {
					t.Fatal(err)
				}
				if resumed != (i > 0) {
					t.Errorf("connection %d, to %s: resumed %t", i+1, node, resumed)
				}
			}
		})
	}
}

// askOverTLS makes a connection and one request, after which the client has its tickets.
func askOverTLS(ctx context.Context, address, host string, config *tls.Config) (resumed bool, err error) {
	raw, err := up.DialClient(ctx, "tcp", address)
	if err != nil {
		return false, err
	}
	defer func() { _ = raw.Close() }()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return false, err
	}
	if _, err := fmt.Fprintf(conn, "HEAD / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host); err != nil {
		return false, err
	}
	answer, err := io.ReadAll(conn)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		err = fmt.Errorf("answered %.100q", answer)
	}
	return conn.ConnectionState().DidResume, err
}
