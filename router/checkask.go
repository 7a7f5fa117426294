package router

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
)

// askEndpoint makes one check, on a connection of its own: whether it can be made is part of
// the question. This is not the path of requests, and net/http will do.
func askEndpoint(ctx context.Context, c HealthCheck, e *Endpoint) error {
	address := e.Address()
	if c.Port != 0 {
		address = netip.AddrPortFrom(address.Addr(), c.Port)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address.String())
	if err != nil {
		return err
	}
	defer conn.Close() // whatever state those below are in
	switch c.Kind {
	case CheckHTTP:
		return askHTTP(ctx, c, conn)
	case CheckGRPC:
		return askGRPC(ctx, c, conn)
	}
	return nil // a connection is all that was asked for
}

// ask sends one request on conn. No proxy of the environment is used, no redirect followed.
func ask(r *http.Request, conn net.Conn, http2 bool) (*http.Response, error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	transport := &http.Transport{
		Protocols:         protocols,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
	}
	r.Header.Set("User-Agent", "portico-health-check")
	return transport.RoundTrip(r)
}

func askHTTP(ctx context.Context, c HealthCheck, conn net.Conn) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+conn.RemoteAddr().String()+c.Path, http.NoBody)
	if err != nil {
		return err
	}
	r.Host = c.Host
	resp, err := ask(r, conn, false)
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
func askGRPC(ctx context.Context, c HealthCheck, conn net.Conn) error {
	url := "http://" + conn.RemoteAddr().String() + "/grpc.health.v1.Health/Check"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(healthRequest(c.Service)))
	if err != nil {
		return err
	}
	r.Host = c.Host
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	resp, err := ask(r, conn, true)
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
