package router

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

// checkRig is a Checker in a bubble, and endpoints that are well or not.
type checkRig struct {
	*Backends
	mu    sync.Mutex
	ill   map[netip.AddrPort]bool
	hang  bool
	asked map[netip.AddrPort]int
	now   int // checks under way
	most  int
}

func runChecks(t *testing.T, r *checkRig) {
	t.Helper()
	r.Backends = NewBackends(BackendsConfig{})
	r.ill, r.asked = map[netip.AddrPort]bool{}, map[netip.AddrPort]int{}
	k := NewChecker(r.Backends)
	k.ask = r.answer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { k.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

func (r *checkRig) answer(ctx context.Context, _ question, e *Endpoint) error {
	r.mu.Lock()
	r.asked[e.Address()]++
	ill, hang := r.ill[e.Address()], r.hang
	r.now++
	r.most = max(r.most, r.now)
	r.mu.Unlock()
	if hang {
		<-ctx.Done()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now--
	if ill || hang {
		return errors.New("ill")
	}
	return nil
}

func (r *checkRig) setIll(n byte, ill bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ill[addressAt(n)] = ill
}

// times is how often each was asked since it was called last.
func (r *checkRig) times() map[netip.AddrPort]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.asked
	r.asked = map[netip.AddrPort]int{}
	return asked
}

func TestChecker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r checkRig
		runChecks(t, &r)
		r.SetTargets("b", targetsAt(1, 2, 3))
		r.SetTargets("unchecked", targetsAt(8))
		check := HealthCheck{Kind: CheckTCP, Interval: 10 * time.Second, Rise: 2, Fall: 3}
		r.SetCheck("b", check)
		state := func(i int) EndpointState { return r.Get("b").Endpoints()[i].State(time.Now()) }
		time.Sleep(100 * time.Second)
		for _, n := range []byte{1, 2, 3} {
			within(t, "checks in 100 s", r.asked[addressAt(n)], 9, 12)
		}
		if r.asked[addressAt(8)] != 0 {
			t.Error("a backend without a check is checked")
		}
		r.setIll(2, true)
		time.Sleep(17 * time.Second) // two checks at most: they are 9 s apart at least
		if state(1) != Up {
			t.Errorf("%v after too few checks", state(1))
		}
		time.Sleep(20 * time.Second)
		if state(1) != Unhealthy || state(0) != Up || state(2) != Up {
			t.Errorf("%v %v %v, want only the second to be unhealthy", state(0), state(1), state(2))
		}
		for e := range share(r.Get("b"), 100, nil) {
			if isAt(e, 2) {
				t.Error("it is picked")
			}
		}
		// Other endpoints come and go: it is still known to be ill.
		r.SetTargets("b", targetsAt(2, 3, 4))
		time.Sleep(time.Second)
		if state(0) != Unhealthy {
			t.Errorf("%v after others came and went", state(0))
		}
		r.times()
		time.Sleep(time.Minute)
		if asked := r.times(); asked[addressAt(1)] != 0 || asked[addressAt(4)] == 0 {
			t.Errorf("asked %v: the first has gone, the fourth has come", asked)
		}
		r.setIll(2, false)
		time.Sleep(8 * time.Second)
		if state(0) != Unhealthy {
			t.Error("it is up after less than two checks")
		}
		time.Sleep(30 * time.Second)
		if state(0) != Up {
			t.Errorf("%v though it is well", state(0))
		}
		// Without a check nobody is ill any more.
		r.setIll(3, true)
		time.Sleep(time.Minute)
		if state(1) != Unhealthy {
			t.Errorf("%v", state(1))
		}
		r.SetCheck("b", HealthCheck{})
		synctest.Wait()
		if state(1) != Up {
			t.Errorf("%v without a check", state(1))
		}
		r.times()
		time.Sleep(time.Hour)
		if asked := r.times(); len(asked) != 0 {
			t.Errorf("asked %v", asked)
		}
		r.SetCheck("b", check)
		time.Sleep(time.Second)
		r.Keep(nil)
		synctest.Wait()
		r.times()
		time.Sleep(time.Hour)
		if asked := r.times(); len(asked) != 0 {
			t.Errorf("asked %v of a backend that is forgotten", asked)
		}
	})
}

func TestCheckerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := checkRig{hang: true}
		runChecks(t, &r)
		var targets []Target
		for port := range 300 {
			targets = append(targets, Target{Address: netip.AddrPortFrom(addressAt(1).Addr(), uint16(port+1))})
		}
		r.SetTargets("b", targets)
		r.SetCheck("b", HealthCheck{Kind: CheckTCP, Timeout: time.Second, Interval: 10 * time.Second, Fall: 1})
		time.Sleep(8 * time.Second) // 5 rounds of 64
		r.mu.Lock()
		most, asked := r.most, len(r.asked)
		r.mu.Unlock()
		if most != maxChecks || asked != 300 {
			t.Errorf("%d at once, want %d; %d asked", most, maxChecks, asked)
		}
		for _, e := range r.Get("b").Endpoints() {
			if e.State(time.Now()) != Unhealthy {
				t.Fatalf("%v: %v after a check that timed out", e.Address(), e.State(time.Now()))
			}
		}
	})
}

func TestAskEndpoint(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" || r.Host != "well.example" {
				code = 400
			}
			w.WriteHeader(code)
		}
	}
	health := func(service, grpcStatus string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			want := append([]byte{0, 0, 0, 0, byte(len(service) + 2), 1<<3 | 2, byte(len(service))}, service...)
			if service == "" {
				want = make([]byte, 5)
			}
			if got, _ := io.ReadAll(r.Body); r.URL.Path != "/grpc.health.v1.Health/Check" || !bytes.Equal(got, want) || r.ProtoMajor != 2 {
				w.WriteHeader(400)
				return
			}
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			w.Write(body)
			w.Header().Set("Grpc-Status", grpcStatus)
		}
	}
	serving, not := []byte{0, 0, 0, 0, 2, 8, 1}, []byte{0, 0, 0, 0, 2, 8, 2}
	web := HealthCheck{Kind: CheckHTTP, Path: "/healthz", Host: "well.example"}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, tt := range []struct {
		name    string
		check   HealthCheck
		handler http.HandlerFunc
		well    bool
	}{
		{"200", web, status(200), true},
		{"302 is not followed", web, status(302), true},
		{"404", web, status(404), false},
		{"500", web, status(500), false},
		{"http hangs", web, hang, false},
		{"tcp", HealthCheck{Kind: CheckTCP}, status(500), true},
		{"grpc", HealthCheck{Kind: CheckGRPC}, health("", "0", serving), true},
		{"grpc service", HealthCheck{Kind: CheckGRPC, Service: "a.B"}, health("a.B", "0", serving), true},
		{"grpc not serving", HealthCheck{Kind: CheckGRPC}, health("", "0", not), false},
		{"grpc unknown service", HealthCheck{Kind: CheckGRPC, Service: "x"}, health("x", "5", nil), false},
		{"grpc hangs", HealthCheck{Kind: CheckGRPC}, hang, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(tt.handler)
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetHTTP1(true)
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Start()
			defer s.Close()
			address := netip.MustParseAddrPort(s.Listener.Addr().String())
			timeout := patience
			if tt.name == "http hangs" || tt.name == "grpc hangs" {
				timeout = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			if err := askEndpoint(ctx, questionOf(tt.check, Transport{}), newEndpoint(Target{Address: address}, nil, 0)); (err == nil) != tt.well {
				t.Errorf("got %v, want well: %v", err, tt.well)
			}
			// The port of the check is another one than that of requests.
			tt.check.Port = address.Port()
			other := netip.AddrPortFrom(address.Addr(), 1)
			if err := askEndpoint(ctx, questionOf(tt.check, Transport{}), newEndpoint(Target{Address: other}, nil, 0)); (err == nil) != tt.well {
				t.Errorf("with a port: got %v, want well: %v", err, tt.well)
			}
		})
	}
	for _, kind := range []CheckKind{CheckTCP, CheckHTTP, CheckGRPC} {
		refused := netip.MustParseAddrPort(refusing(t))
		if err := askEndpoint(t.Context(), questionOf(HealthCheck{Kind: kind, Path: "/"}, Transport{}), newEndpoint(Target{Address: refused}, nil, 0)); err == nil {
			t.Errorf("%v: well, though nobody listens", kind)
		}
	}
}

// Checks speak TLS and HTTP/2 as requests do: with the same CA, name and client certificate.
func TestAskEndpointOverTLS(t *testing.T) {
	trusted := x509.NewCertPool()
	trusted.AddCert(testCertificate().Leaf)
	own := testCertificate()
	sees := func(version int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.TLS == nil || r.ProtoMajor != version || len(r.TLS.PeerCertificates) != 1 || r.TLS.ServerName != "h.test" {
				w.WriteHeader(400)
				return
			}
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			w.Write([]byte{0, 0, 0, 0, 2, 8, 1})
			w.Header().Set("Grpc-Status", "0")
		}
	}
	good := &tls.Config{RootCAs: trusted, ServerName: "h.test", Certificates: []tls.Certificate{own}}
	for _, tt := range []struct {
		name  string
		check HealthCheck
		via   Transport
		sees  int // version of HTTP
		well  bool
	}{
		{"http", HealthCheck{Kind: CheckHTTP, Path: "/"}, Transport{TLS: good}, 1, true},
		{"http of HTTP/2", HealthCheck{Kind: CheckHTTP, Path: "/"}, Transport{TLS: good, Protocol: engine.ProtocolHTTP2}, 2, true},
		{"grpc", HealthCheck{Kind: CheckGRPC}, Transport{TLS: good, Protocol: engine.ProtocolHTTP2}, 2, true},
		{"another CA", HealthCheck{Kind: CheckHTTP, Path: "/"}, Transport{TLS: &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "h.test"}}, 1, false},
		{"another name", HealthCheck{Kind: CheckGRPC}, Transport{TLS: &tls.Config{RootCAs: trusted, ServerName: "other.test"}}, 2, false},
		{"no client certificate", HealthCheck{Kind: CheckHTTP, Path: "/"}, Transport{TLS: &tls.Config{RootCAs: trusted, ServerName: "h.test"}}, 1, false},
		{"plain", HealthCheck{Kind: CheckHTTP, Path: "/"}, Transport{}, 1, false},
		{"tcp", HealthCheck{Kind: CheckTCP}, Transport{TLS: good}, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewUnstartedServer(sees(tt.sees))
			s.TLS = &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAnyClientCert}
			s.EnableHTTP2 = true
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.StartTLS()
			defer s.Close()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			e := newEndpoint(Target{Address: netip.MustParseAddrPort(s.Listener.Addr().String())}, nil, 0)
			if err := askEndpoint(ctx, questionOf(tt.check, tt.via), e); (err == nil) != tt.well {
				t.Errorf("got %v, want well: %v", err, tt.well)
			}
			tt.check.Port = e.Address().Port() // a port of its own is plain
			if err := askEndpoint(ctx, questionOf(tt.check, tt.via), e); (err == nil) != (tt.check.Kind == CheckTCP) {
				t.Errorf("with a port: %v", err)
			}
		})
	}
}

// An answer that never ends, and a head of any size, take no more than the timeout and some KB.
func TestAskEndpointIsBounded(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
				line := append(append([]byte("A: "), bytes.Repeat([]byte("x"), 4000)...), "\r\n"...)
				for range 1000 {
					if _, err := conn.Write(line); err != nil {
						return
					}
				}
			}()
		}
	}()
	e := newEndpoint(Target{Address: netip.MustParseAddrPort(ln.Addr().String())}, nil, 0)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := askEndpoint(ctx, questionOf(HealthCheck{Kind: CheckHTTP, Path: "/"}, Transport{}), e); err == nil || ctx.Err() != nil {
		t.Errorf("got %v, want an answer that is refused for its size", err)
	}
}

func FuzzIsServing(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 2, 8, 2})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if isServing(b) != bytes.Equal(b, []byte{0, 0, 0, 0, 2, 8, 1}) {
			t.Errorf("%x", b)
		}
	})
}
