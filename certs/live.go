package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

var (
	// ErrNotReady fails handshakes that come before the first Set is stored.
	ErrNotReady = errors.New("certs: no certificates are live yet")
	// ErrNoCertificate fails handshakes for a host without certificate when the Set has no fallback.
	ErrNoCertificate = errors.New("certs: no certificate for this host, and no default certificate")
)

// Live is where one Set takes over from another. The zero value is ready to use and fails every handshake
// with [ErrNotReady] until the first Store. Do not copy it.
type Live struct {
	set atomic.Pointer[Set]

	mu     sync.Mutex
	keys   [][TicketKeySize]byte // of SetTicketKeys
	config *tls.Config           // of TLSConfig
}

// Store makes a set the one that handshakes from now on are answered from.
func (l *Live) Store(s *Set) { l.set.Store(s) }

// Load returns the current set, nil before the first Store.
func (l *Live) Load() *Set { return l.set.Load() }

// GetCertificate chooses from the current set. It fits [tls.Config.GetCertificate].
func (l *Live) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s := l.set.Load()
	if s == nil {
		return nil, ErrNotReady
	}
	c := s.Choose(hello)
	if c == nil {
		return nil, fmt.Errorf("%w: %.255q", ErrNoCertificate, hello.ServerName)
	}
	return &c.pair, nil
}

// aeadSuites are those of TLS 1.2 that crypto/tls has and that RFC 9325 section 4.2 recommends.
var aeadSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// TLSConfig is how Portico's listeners speak TLS. nextProtos is what ALPN offers, best first ("h2",
// "http/1.1").
//
//   - TLS 1.2 and 1.3. What is older is refused by every current client (RFC 8996).
//   - Of TLS 1.2 the suites with ECDHE and AEAD only, as ingress-nginx has them by default: those with CBC, which
//     crypto/tls still offers last, are open to Lucky 13 and its kin. Their order is Go's own, by whether both
//     sides have AES in hardware; the suites of 1.3 cannot be configured at all.
//   - Curves are Go's own: the post-quantum hybrid X25519MLKEM768 leads. Naming them here would only freeze
//     today's list.
//   - Session tickets are on, with the keys of [Live.SetTicketKeys]. As long as there are none, crypto/tls makes a new key every 24
//     hours, goes on accepting the older ones for 7 days from their making and then forgets them, and accepts
//     no session older than 7 days (ticketKeys, ticketKeyRotation, ticketKeyLifetime and
//     maxSessionTicketLifetime in crypto/tls/common.go). A ticket resumes only for the host it was given to,
//     see [Live.bindTickets].
//   - Clients are asked for a certificate where the host has a [ClientPolicy], and nothing is refused for it
//     here.
//
// The ticket keys live in the Config returned: call TLSConfig once, share it between the listeners, and do
// not Clone it per connection. Swapping sets needs no new Config.
func (l *Live) TLSConfig(nextProtos ...string) *tls.Config {
	c := &tls.Config{
		GetCertificate: l.GetCertificate,
		MinVersion:     tls.VersionTLS12,
		CipherSuites:   aeadSuites,
		NextProtos:     slices.Clone(nextProtos),
	}
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return l.configForClient(c, hello), nil }
	l.bindTickets(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.config = c; l.keys != nil {
		c.SetSessionTicketKeys(l.keys)
	}
	return c
}
