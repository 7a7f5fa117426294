package certs

import (
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"
)

// oneTicket is a client's cache that offers its latest ticket to every host, as an honest client never does.
type oneTicket struct{ session *tls.ClientSessionState }

func (c *oneTicket) Get(string) (*tls.ClientSessionState, bool)    { return c.session, c.session != nil }
func (c *oneTicket) Put(_ string, session *tls.ClientSessionState) { c.session = session }

// TestTicketsAreBoundToTheirHost has one certificate for two hosts, so that the client has no reason of its
// own not to offer the ticket of one to the other.
func TestTicketsAreBoundToTheirHost(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			both := newCert(t, "ns/tls", KeyECDSA, "a.example", "b.example", "127.0.0.1")
			live := liveWith(both)
			bound := live.TLSConfig()
			plain := &tls.Config{GetCertificate: live.GetCertificate}

			resumes := func(config *tls.Config, from, to string) bool {
				addr, _ := echo(t, config)
				cache := new(oneTicket)
				change := func(c *tls.Config) { c.MaxVersion, c.ClientSessionCache = version, cache }
				say(t, mustDial(t, addr, from, change), "first")
				c := mustDial(t, addr, to, change)
				say(t, c, "second")
				return c.ConnectionState().DidResume
			}
			for _, tt := range []struct {
				from, to string
				want     bool
			}{
				{"a.example", "a.example", true},
				{"a.example", "A.Example", true},
				{"127.0.0.1", "127.0.0.1", true}, // no SNI either time
				{"a.example", "b.example", false},
				{"a.example", "127.0.0.1", false},
				{"127.0.0.1", "a.example", false},
			} {
				if got := resumes(bound, tt.from, tt.to); got != tt.want {
					t.Errorf("from %s to %s: resumed %v, want %v", tt.from, tt.to, got, tt.want)
				}
			}
			// The reason for bindTickets. If this fails, crypto/tls compares names itself: delete ours.
			if !resumes(plain, "a.example", "b.example") {
				t.Error("crypto/tls alone no longer resumes across hosts")
			}
		})
	}
}

// TestTicketKeysRotate moves the server's clock: crypto/tls takes a new key after a day, honours a ticket of
// an earlier key for a week and no longer, with our wrapping as without it.
func TestTicketKeysRotate(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	cert := newCert(t, "ns/tls", KeyECDSA, "a.example")
	for _, tt := range []struct {
		age  time.Duration
		want bool
	}{{23 * time.Hour, true}, {2 * day, true}, {6*day + 23*time.Hour, true}, {8 * day, false}} {
		config := liveWith(cert).TLSConfig()
		var ahead atomic.Int64
		config.Time = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		addr, _ := echo(t, config)
		cache := new(oneTicket)
		change := func(c *tls.Config) {
			c.MaxVersion, c.ClientSessionCache = tls.VersionTLS12, cache // whose client does not count days itself
		}
		say(t, mustDial(t, addr, "a.example", change), "first")
		ahead.Store(int64(tt.age))
		c := mustDial(t, addr, "a.example", change)
		say(t, c, "second")
		if got := c.ConnectionState().DidResume; got != tt.want {
			t.Errorf("a ticket of age %v: resumed %v, want %v", tt.age, got, tt.want)
		}
	}
}
