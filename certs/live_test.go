package certs

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
)

// echo serves TLS on loopback until the test ends, sending every line back. Failed handshakes go to errs,
// which is read by those tests that expect one.
func echo(t testing.TB, config *tls.Config) (addr string, errs <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 16)
	var conns sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	conns.Go(func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[raw] = true
			mu.Unlock()
			conns.Go(func() {
				defer raw.Close()
				c := tls.Server(raw, config)
				if err := c.Handshake(); err != nil {
					select {
					case failed <- err:
					default:
					}
					return
				}
				for r := bufio.NewReader(c); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						return
					}
					if _, err := c.Write([]byte(line)); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		conns.Wait()
	})
	return ln.Addr().String(), failed
}

// dial connects as a client that trusts the test CA and verifies in earnest.
func dial(t testing.TB, addr, sni string, change func(*tls.Config)) (*tls.Conn, error) {
	t.Helper()
	config := &tls.Config{ServerName: sni, RootCAs: theCA().roots}
	if change != nil {
		change(config)
	}
	c, err := tls.Dial("tcp", addr, config)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func mustDial(t testing.TB, addr, sni string, change func(*tls.Config)) *tls.Conn {
	t.Helper()
	c, err := dial(t, addr, sni, change)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// say sends a line and waits for it to come back: after that, any session ticket has been read as well.
func say(t testing.TB, c *tls.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text + "\n")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text)+1)
	for n := 0; n < len(got); {
		m, err := c.Read(got[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
	}
	if string(got) != text+"\n" {
		t.Fatalf("said %q, heard %q", text, got)
	}
}

func shown(c *tls.Conn) string {
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func serial(c *Certificate) string { return c.Leaf.SerialNumber.String() }

func liveWith(fallback *Certificate, entries ...Entry) *Live {
	l := new(Live)
	l.Store(NewSet(fallback, entries))
	return l
}

func TestHandshakeChooses(t *testing.T) {
	t.Parallel()
	ecdsa, rsa := newCert(t, "ecdsa", KeyECDSA, "a.example"), newCert(t, "rsa", KeyRSA, "a.example")
	ed := newCert(t, "ed", KeyEd25519, "ed.example")
	wild, fallback := newCert(t, "wild", KeyECDSA, "*.w.example"), newCert(t, "fallback", KeyECDSA, "default.example", "127.0.0.1")
	addr, _ := echo(t, liveWith(fallback,
		Entry{"a.example", []*Certificate{rsa, ecdsa}}, Entry{"*.w.example", []*Certificate{wild}}, Entry{"ed.example", []*Certificate{ed}},
	).TLSConfig("h2", "http/1.1"))

	tls12 := func(suites ...uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, suites }
	}
	for _, tt := range []struct {
		name, sni string
		change    func(*tls.Config)
		want      *Certificate
	}{
		{"exact, TLS 1.3", "a.example", nil, ecdsa},
		{"exact, TLS 1.2", "a.example", tls12(), ecdsa},
		{"TLS 1.2 with suites of RSA only", "a.example", tls12(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256), rsa},
		{"upper case", "A.EXAMPLE", nil, ecdsa},
		{"wildcard", "x.w.example", nil, wild},
		{"Ed25519", "ed.example", nil, ed},
		{"fallback", "default.example", nil, fallback},
		{"address: no SNI", "127.0.0.1", nil, fallback},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := mustDial(t, addr, tt.sni, tt.change)
			if shown(c) != serial(tt.want) {
				t.Errorf("was not shown %s but %s", tt.want.Name, title(c.ConnectionState().PeerCertificates[0]))
			}
			say(t, c, "hello")
		})
	}

	t.Run("ALPN", func(t *testing.T) {
		t.Parallel()
		c := mustDial(t, addr, "a.example", func(c *tls.Config) { c.NextProtos = []string{"http/1.1", "h2"} })
		if got := c.ConnectionState().NegotiatedProtocol; got != "h2" {
			t.Errorf("negotiated %q, want h2", got)
		}
	})
	t.Run("TLS 1.1 is refused", func(t *testing.T) {
		t.Parallel()
		c, err := dial(t, addr, "a.example", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 })
		if err == nil {
			t.Errorf("negotiated %s", tls.VersionName(c.ConnectionState().Version))
		}
	})
}

// Suites with CBC are not spoken, though crypto/tls has them.
func TestHandshakeRefusesCBC(t *testing.T) {
	t.Parallel()
	addr, _ := echo(t, liveWith(newCert(t, "ns/tls", KeyECDSA, "a.example")).TLSConfig())
	for _, suite := range tls.CipherSuites() {
		if !slices.Contains(suite.SupportedVersions, tls.VersionTLS12) || !strings.Contains(suite.Name, "ECDSA") {
			continue
		}
		_, err := dial(t, addr, "a.example", func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{suite.ID} })
		if wanted := !strings.Contains(suite.Name, "_CBC_"); (err == nil) != wanted {
			t.Errorf("%s: %v", suite.Name, err)
		}
	}
}

func TestHandshakeFailsClearly(t *testing.T) {
	t.Parallel()
	var zero Live
	for _, tt := range []struct {
		name string
		live *Live
		want error
	}{
		{"before the first set", &zero, ErrNotReady},
		{"no certificate and no fallback", liveWith(nil), ErrNoCertificate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr, errs := echo(t, tt.live.TLSConfig())
			if _, err := dial(t, addr, "a.example", nil); err == nil {
				t.Error("the handshake succeeded")
			}
			if err := <-errs; !errors.Is(err, tt.want) {
				t.Errorf("the server says %v, want %v", err, tt.want)
			}
		})
	}
	_, err := liveWith(nil).GetCertificate(&tls.ClientHelloInfo{ServerName: "a.example"})
	if err == nil || !strings.Contains(err.Error(), `"a.example"`) {
		t.Errorf("the error does not name the host: %v", err)
	}
}

// TestSwap rotates a certificate under an open connection: the connection goes on, new ones see the new
// certificate, and a client with a ticket of the old days still resumes.
func TestSwap(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			old, renewed := newCert(t, "ns/tls", KeyECDSA, "a.example"), newCert(t, "ns/tls", KeyECDSA, "a.example")
			live := liveWith(nil, Entry{"a.example", []*Certificate{old}})
			addr, _ := echo(t, live.TLSConfig())

			cache := tls.NewLRUClientSessionCache(4)
			resuming := func(c *tls.Config) { c.MaxVersion, c.ClientSessionCache = version, cache }
			fresh := func(c *tls.Config) { c.MaxVersion = version }

			before := mustDial(t, addr, "a.example", resuming)
			say(t, before, "one")
			live.Store(NewSet(nil, []Entry{{"a.example", []*Certificate{renewed}}}))
			say(t, before, "two")

			if after := mustDial(t, addr, "a.example", fresh); shown(after) != serial(renewed) {
				t.Error("a new handshake was shown the old certificate")
			}
			resumed := mustDial(t, addr, "a.example", resuming)
			say(t, resumed, "three")
			if !resumed.ConnectionState().DidResume {
				t.Error("the swap made old tickets worthless")
			}
			say(t, before, "four")
			if shown(before) != serial(old) {
				t.Error("the old connection changed its certificate")
			}
		})
	}
}

// TestSwapUnderLoad swaps sets while clients connect: every handshake succeeds and shows a certificate of
// one set or the other.
func TestSwapUnderLoad(t *testing.T) {
	t.Parallel()
	a, b := newCert(t, "a", KeyECDSA, "a.example"), newCert(t, "b", KeyECDSA, "a.example")
	sets := []*Set{NewSet(nil, []Entry{{"a.example", []*Certificate{a}}}), NewSet(nil, []Entry{{"a.example", []*Certificate{b}}})}
	var live Live
	live.Store(sets[0])
	addr, _ := echo(t, live.TLSConfig())

	stop := make(chan struct{})
	var swapper, clients sync.WaitGroup
	swapper.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				live.Store(sets[i%2])
			}
		}
	})
	for range 4 {
		clients.Go(func() {
			for range 10 {
				c, err := dial(t, addr, "a.example", nil)
				if err != nil {
					t.Error(err)
					return
				}
				if s := shown(c); s != serial(a) && s != serial(b) {
					t.Errorf("shown serial %s, of neither set", s)
				}
				c.Close()
			}
		})
	}
	clients.Wait()
	close(stop)
	swapper.Wait()
}
