package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

var h1Request = []byte("GET / HTTP/1.1\r\nHost: " + hostName + "\r\n\r\n")

// h1Client is a connection of HTTP/1.1, and its one slot.
type h1Client struct {
	net.Conn
	to  *paced
	due chan time.Time
}

func dialH1(addr string, to *paced) (closer, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return newH1Client(conn, to), nil
}

func dialTLS(addr string, to *paced) (closer, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", addr, clientTLS("http/1.1"))
	if err != nil {
		return nil, err
	}
	return newH1Client(conn, to), nil
}

func newH1Client(conn net.Conn, to *paced) *h1Client {
	c := &h1Client{Conn: conn, to: to, due: make(chan time.Time, 1)}
	go c.read()
	to.free <- c
	return c
}

func (c *h1Client) send(due time.Time) error {
	c.due <- due
	_, err := c.Write(h1Request)
	return err
}

func (c *h1Client) read() {
	r := bufio.NewReader(c)
	for {
		if err := readAnswer(r); err != nil {
			c.to.fail(err)
			return
		}
		c.to.answered(c, <-c.due)
	}
}

// readAnswer reads one answer over, which must be a good one.
func readAnswer(r *bufio.Reader) error {
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if n, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		return fmt.Errorf("answered with %s and %d bytes: %w", answer.Status, n, err)
	}
	return nil
}
