package certs

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
)

// TestUpstream shakes hands with a server, and looks at what that was sent.
func TestUpstream(t *testing.T) {
	own := newCert(t, "test/web", "P-384", "web.test")
	trusted := x509.NewCertPool()
	trusted.AddCert(own.Leaf)
	const name = "web.test"
	for _, tt := range []struct {
		name string
		in   Upstream
		want string // part of the error
		sni  string
	}{
		{name: "nothing is asked"},
		{name: "server name", in: Upstream{ServerName: "web.test"}, sni: "web.test"},
		{name: "verified", in: Upstream{Verify: true, Name: name, Roots: trusted, Depth: 1}},
		{name: "another name", in: Upstream{Verify: true, Name: "other.test", Roots: trusted, Depth: 1}, want: "other.test"},
		{name: "another CA", in: Upstream{Verify: true, Name: name, Roots: x509.NewCertPool(), Depth: 1}, want: "unknown authority"},
		{name: "client certificate", in: Upstream{Client: own}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen := make(chan tls.ConnectionState, 1)
			a, b := net.Pipe()
			defer a.Close()
			server := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{own.pair}, ClientAuth: tls.RequestClientCert})
			go func() {
				server.Handshake() //nolint:errcheck // the client's verdict is what counts
				seen <- server.ConnectionState()
				b.Close()
			}()
			err := tls.Client(a, tt.in.Config()).Handshake()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want %q", err, tt.want)
			}
			if err != nil {
				return
			}
			a.Close()
			state := <-seen
			if state.ServerName != tt.sni || tt.in.Client != nil && len(state.PeerCertificates) == 0 {
				t.Errorf("the server saw name %q and %d certificates", state.ServerName, len(state.PeerCertificates))
			}
		})
	}
}
