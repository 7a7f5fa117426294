package load

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// client is one connection, or the place for one.
type client struct {
	options *Options
	tally   *tally

	conn        net.Conn
	br          *bufio.Reader
	certificate string // of the handshake that was not told yet
}

// errStale is a kept connection that gave no byte of an answer.
var errStale = errors.New("kept connection was closed")

// do sends one request and reads its answer.
func (c *client) do() outcome {
	reused := c.conn != nil
	o := c.try()
	if reused && errors.Is(o.err, errStale) && !c.options.StrictReuse {
		o = c.try()
		o.stale, reused = true, false
	}
	o.reused = reused
	if o.err != nil || c.options.NewConnections {
		c.close()
	}
	return o
}

func (c *client) try() (o outcome) {
	deadline := time.Now().Add(c.options.Timeout)
	req, err := c.request()
	if err != nil {
		return outcome{err: err}
	}
	reused := c.conn != nil
	if !reused {
		if err := c.dial(req, deadline); err != nil {
			return outcome{err: fmt.Errorf("connect: %w", err)}
		}
		o.certificate = c.certificate
	}
	_ = c.conn.SetDeadline(deadline)
	err = req.Write(c.conn)
	if err == nil || reused {
		// A kept connection may fail in writing and still have an answer to
		// read; only when it has not is it a stale one.
		_, peekErr := c.br.Peek(1)
		err = errors.Join(err, peekErr)
		if peekErr == nil {
			err = nil
		}
	}
	if err != nil {
		c.close()
		var timeout net.Error
		if reused && (!errors.As(err, &timeout) || !timeout.Timeout()) {
			err = fmt.Errorf("%w: %w", errStale, err)
		}
		o.err = err
		return o
	}
	c.read(req, &o)
	return o
}

// read reads an answer that has begun.
func (c *client) read(req *http.Request, o *outcome) {
	res, err := http.ReadResponse(c.br, req)
	if err != nil {
		c.close()
		o.err = fmt.Errorf("read answer: %w", err)
		return
	}
	o.status, o.pod = res.StatusCode, res.Header.Get("X-Echo-Pod")
	var begin strings.Builder
	_, err = io.CopyN(&begin, res.Body, 200)
	if errors.Is(err, io.EOF) {
		err = nil
	} else if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
	}
	_ = res.Body.Close()
	if err != nil {
		o.err = fmt.Errorf("read body: %w", err)
	}
	if o.status >= 300 {
		o.body = begin.String()
	}
	if err != nil || res.Close {
		c.close()
	}
}

func (c *client) request() (*http.Request, error) {
	o := c.options
	req, err := http.NewRequest(o.Method, o.URL, strings.NewReader(o.Body))
	if err != nil {
		return nil, err
	}
	for name, value := range o.Header {
		req.Header.Set(name, value)
	}
	if o.Host != "" {
		req.Host = o.Host
	}
	req.Header.Set("User-Agent", "portico-e2e-load")
	req.Close = o.NewConnections
	return req, nil
}

func (c *client) dial(req *http.Request, deadline time.Time) error {
	c.certificate = ""
	d := net.Dialer{Deadline: deadline}
	address := req.URL.Host
	if req.URL.Port() == "" {
		address = net.JoinHostPort(req.URL.Hostname(), map[string]string{"http": "80", "https": "443"}[req.URL.Scheme])
	}
	conn, err := d.Dial("tcp", address)
	if err != nil {
		return err
	}
	if req.URL.Scheme == "https" {
		name, _, err := net.SplitHostPort(req.Host)
		if err != nil {
			name = req.Host
		}
		// Which certificate comes is what the caller counts, good or not.
		t := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
		_ = t.SetDeadline(deadline)
		if err := t.Handshake(); err != nil {
			_ = conn.Close()
			return err
		}
		c.certificate = t.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
		conn = t
	}
	c.conn, c.br = conn, bufio.NewReader(conn)
	return nil
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn, c.br = nil, nil
	}
}
