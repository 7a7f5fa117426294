package certs

import (
	"bytes"
	"crypto/tls"
	"slices"
)

// ticketHost marks, in a session ticket, the host it was given to.
const ticketHost = "portico ticket host 1:"

// bindTickets makes a session ticket worth something for the host it was given to only.
//
// Left alone, a crypto/tls server takes any ticket sealed with its keys. It checks the age, version, cipher
// suite and, with client authentication, that the client certificates in the ticket still fit the Config's
// policy; it does not compare the server name, neither in TLS 1.2 (checkForResumption) nor in 1.3
// (checkForPSK). So a session begun on host A resumes under the SNI of host B, with no certificate of B ever
// chosen or shown. RFC 6066, section 3 forbids that for 1.2. It is harmless while a session proves nothing
// about the client, and stops being so on the day one host asks for client certificates and its neighbour
// does not, or trusts another CA. Binding costs a few bytes in the ticket; no browser notices, since they
// all keep their sessions by host.
//
// Where a host asks for client certificates the ticket is bound to that policy, too, and is worth nothing
// if the client showed no certificate: then it is asked again. (A session brings the certificate back, and
// it is verified anew all the same.)
//
// A mismatch is not an error: the handshake goes on in full.
func (l *Live) bindTickets(c *tls.Config) {
	c.WrapSession = func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, l.ticketMark(cs.ServerName, len(cs.PeerCertificates) > 0))
		return c.EncryptTicket(cs, session)
	}
	c.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		session, err := c.DecryptTicket(ticket, cs)
		if err != nil || session == nil {
			return nil, err
		}
		mark := l.ticketMark(cs.ServerName, true)
		if slices.ContainsFunc(session.Extra, func(extra []byte) bool { return bytes.Equal(extra, mark) }) {
			return session, nil
		}
		return nil, nil
	}
}

// ticketMark is what a ticket has to bear to be taken for a host.
func (l *Live) ticketMark(host string, certified bool) []byte {
	mark := ticketHost + normalHost(host)
	if p := l.policy(host); p != nil {
		mark += "\x00" + p.Fingerprint()
		if !certified {
			mark += "\x00none"
		}
	}
	return []byte(mark)
}
