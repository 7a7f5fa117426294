package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Client is a connection of HTTP/2 with as many slots as it may have streams here.
type h2Client struct {
	net.Conn
	to     *paced
	framer *http2.Framer
	block  []byte // the header block of a request

	mu   sync.Mutex // writes
	next uint32
	due  map[uint32]time.Time
}

const h2Slots = 16

func dialH2(addr string, to *paced) (closer, error) {
	c, err := newH2Client(addr)
	if err != nil {
		return nil, err
	}
	c.to = to
	go c.read()
	for range h2Slots {
		to.free <- c
	}
	return c, nil
}

// newH2Client connects and says what a client has to say first. Windows are wide open.
func newH2Client(addr string) (*h2Client, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", addr, clientTLS("h2"))
	if err != nil {
		return nil, err
	}
	c := &h2Client{Conn: conn, framer: http2.NewFramer(conn, conn), next: 1, due: map[uint32]time.Time{}}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	encoder.SetMaxDynamicTableSize(0) // the same block fits every stream
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: hostName}, {Name: ":path", Value: "/"},
	} {
		if err := encoder.WriteField(f); err != nil {
			return nil, err
		}
	}
	c.block = block.Bytes()
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	if err := c.framer.WriteSettings(); err != nil {
		return nil, err
	}
	return c, c.framer.WriteWindowUpdate(0, 1<<30)
}

func (c *h2Client) send(due time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.next
	c.next += 2
	c.due[id] = due
	return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block, EndHeaders: true, EndStream: true})
}

func (c *h2Client) read() {
	for {
		id, err := c.readEnd()
		if err != nil {
			c.to.fail(err)
			return
		}
		c.mu.Lock()
		due := c.due[id]
		delete(c.due, id)
		c.mu.Unlock()
		c.to.answered(c, due)
	}
}

// readEnd reads until a stream has ended.
func (c *h2Client) readEnd() (uint32, error) {
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return 0, err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if f.IsAck() {
				continue
			}
			c.mu.Lock()
			err = c.framer.WriteSettingsAck()
			c.mu.Unlock()
		case *http2.PingFrame:
			c.mu.Lock()
			err = c.framer.WritePing(!f.IsAck(), f.Data)
			c.mu.Unlock()
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			err = fmt.Errorf("the server says %v", f)
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return f.StreamID, nil
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return f.StreamID, nil
			}
		}
		if err != nil {
			return 0, err
		}
	}
}

const grpcPath = "/grpc.Bench/Call"

// probeGRPC makes one call. A proxy that cannot pass it on does not support it.
func probeGRPC(ctx context.Context, p *proxy) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	config := clientTLS("h2")
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: config, Protocols: protocols, DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+hostName+portOf(p.https)+grpcPath, bytes.NewReader(grpcMessage))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSupported, err)
	}
	defer answer.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(answer.Body); err != nil {
		return fmt.Errorf("%w: %w", errNotSupported, err)
	}
	if status := answer.Trailer.Get("Grpc-Status"); status != "0" || !bytes.Equal(body.Bytes(), grpcMessage) {
		if status == "" {
			status = answer.Header.Get("Grpc-Status") + " " + answer.Header.Get("Grpc-Message") // an answer without a message
		}
		return fmt.Errorf("%w: %s, grpc-status %q, %d bytes", errNotSupported, answer.Status, strings.TrimSpace(status), body.Len())
	}
	return nil
}
