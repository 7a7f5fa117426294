package router

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"

	"github.com/portico-ingress/portico/router/engine"
)

// askEndpoint makes one check, on a connection of its own: whether it can be made is part of
// the question. This is not the path of requests, and net/http will do.
func askEndpoint(ctx context.Context, c question, e *Endpoint) error {
	address := e.Address()
	if c.Port != 0 {
		address = netip.AddrPortFrom(address.Addr(), c.Port)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address.String())
	if err != nil {
		return err
	}
	defer conn.Close() // whatever state those below are in
	if c.Kind == CheckTCP {
		return nil // a connection is all that was asked for
	}
	if c.via.TLS != nil {
		secure := tls.Client(conn, c.config())
		if err := secure.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		conn = secure
	}
	if c.Kind == CheckGRPC {
		return askGRPC(ctx, c, conn)
	}
	return askHTTP(ctx, c, conn)
}

// question is a HealthCheck, and how the endpoint is spoken to. It is comparable.
type question struct {
	HealthCheck
	via Transport
}

// questionOf is what the endpoints of a backend are asked: in the way in which requests are
// sent, but for another port. That has a server of its own, which is plain, as with HAProxy.
func questionOf(c HealthCheck, via Transport) question {
	if c.Port != 0 {
		via = Transport{}
	}
	return question{c, via}
}

func (c *question) http2() bool { return c.Kind == CheckGRPC || c.via.Protocol == engine.ProtocolHTTP2 }

// config asks for the protocol of the check, and leaves the sessions of requests alone.
func (c *question) config() *tls.Config {
	config := c.via.TLS.Clone()
	config.NextProtos, config.ClientSessionCache = []string{"http/1.1"}, nil
	if c.http2() {
		config.NextProtos = []string{"h2"}
	}
	return config
}

// url is of a path of the endpoint at the other end of conn.
func (c *question) url(conn net.Conn, path string) string {
	scheme := "http://"
	if c.via.TLS != nil {
		scheme = "https://"
	}
	return scheme + conn.RemoteAddr().String() + path
}

// ask sends one request on conn. No proxy of the environment is used, no redirect followed.
func (c *question) ask(r *http.Request, conn net.Conn) (*http.Response, error) {
	r.Header.Set("User-Agent", "portico-health-check")
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!c.http2())
	protocols.SetHTTP2(c.http2() && c.via.TLS != nil)
	protocols.SetUnencryptedHTTP2(c.http2() && c.via.TLS == nil)
	dial := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	transport := &http.Transport{
		Protocols: protocols, DialContext: dial, DialTLSContext: dial,
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
	}
	return transport.RoundTrip(r)
}

func askHTTP(ctx context.Context, c question, conn net.Conn) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url(conn, c.Path), http.NoBody)
	if err != nil {
		return err
	}
	r.Host = c.Host
	resp, err := c.ask(r, conn)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

var errNotServing = errors.New("not SERVING")

// askGRPC calls grpc.health.v1.Health/Check (gRPC Health Checking Protocol). The messages
// are so small that writing them by hand is less than a library.
func askGRPC(ctx context.Context, c question, conn net.Conn) error {
	url := c.url(conn, "/grpc.health.v1.Health/Check")
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(healthRequest(c.Service)))
	if err != nil {
		return err
	}
	r.Host = c.Host
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	resp, err := c.ask(r, conn)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return err
	}
	status := resp.Trailer.Get("Grpc-Status")
	if status == "" {
		status = resp.Header.Get("Grpc-Status") // an answer of trailers only
	}
	if resp.StatusCode != http.StatusOK || status != "0" || !isServing(answer) {
		return fmt.Errorf("%w: status %d, grpc-status %q", errNotServing, resp.StatusCode, status)
	}
	return nil
}

// healthRequest is HealthCheckRequest{service = 1}, with the prefix of a gRPC message.
func healthRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service)))
		message = append(message, service...)
	}
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(b, message...)
}

// isServing reads HealthCheckResponse{status = 1}: SERVING is 1.
func isServing(b []byte) bool {
	return len(b) == 7 && b[0] == 0 && binary.BigEndian.Uint32(b[1:]) == 2 && b[5] == 1<<3 && b[6] == 1
}
