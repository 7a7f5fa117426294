package certs

import (
	"bytes"
	"crypto/tls"
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
// A mismatch is not an error: the handshake goes on in full.
func bindTickets(c *tls.Config) {
	c.WrapSession = func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, []byte(ticketHost+normalHost(cs.ServerName)))
		return c.EncryptTicket(cs, session)
	}
	c.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		session, err := c.DecryptTicket(ticket, cs)
		if err != nil || session == nil {
			return nil, err
		}
		for _, extra := range session.Extra {
			if host, ok := bytes.CutPrefix(extra, []byte(ticketHost)); ok && string(host) == normalHost(cs.ServerName) {
				return session, nil
			}
		}
		return nil, nil
	}
}
