package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"
)

// idleCost is what one idle connection costs a proxy in resident memory, in KB of 1024 bytes.
type idleCost struct {
	kb  float64
	err error
}

// idleCost opens connections to a proxy that has just been started, asks once on each, and
// leaves them alone.
func (b *bench) idleCost(ctx context.Context, proxyName, kind string) idleCost {
	p, err := b.startProxy(ctx, proxyName)
	if err != nil {
		return idleCost{err: err}
	}
	defer p.stop()
	if err := b.warm(ctx, p, kind); err != nil {
		return idleCost{err: err}
	}
	n := b.cfg.idle
	before := p.resident()
	conns, err := openIdle(ctx, p, kind, n)
	defer func() {
		for _, c := range conns {
			_ = c.Close() // it has served
		}
	}()
	if err != nil {
		return idleCost{err: err}
	}
	select {
	case <-time.After(b.cfg.settle):
	case <-ctx.Done():
		return idleCost{err: ctx.Err()}
	}
	return idleCost{kb: float64(p.resident()-before) / 1024 / float64(n)}
}

// warm has the proxy touch the memory that it needs in any case.
func (b *bench) warm(ctx context.Context, p *proxy, kind string) error {
	conns, err := openIdle(ctx, p, kind, 100)
	for _, c := range conns {
		_ = c.Close() // as above
	}
	return err
}

// openIdle opens n connections, 64 at a time. One address has not enough ports for all, next
// to those that linger from what was measured before.
func openIdle(ctx context.Context, p *proxy, kind string, n int) ([]net.Conn, error) {
	var mu sync.Mutex
	var conns []net.Conn
	var failed error
	var all sync.WaitGroup
	todo := make(chan int, n)
	for i := range n {
		todo <- i
	}
	close(todo)
	for range 64 {
		all.Go(func() {
			for i := range todo {
				c, err := openOne(ctx, p, kind, net.IPv4(127, 0, 1, byte(1+i/2500)))
				mu.Lock()
				if err != nil {
					failed = fmt.Errorf("connection %d: %w", i, err)
				} else {
					conns = append(conns, c)
				}
				stop := failed != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	all.Wait()
	return conns, failed
}

func openOne(ctx context.Context, p *proxy, kind string, from net.IP) (net.Conn, error) {
	d := &net.Dialer{Timeout: 20 * time.Second, LocalAddr: &net.TCPAddr{IP: from}}
	switch kind {
	case idleH2:
		return openIdleH2(p.https)
	case idleTLS:
		c, err := tls.DialWithDialer(d, "tcp", p.https, clientTLS("http/1.1"))
		if err != nil {
			return nil, err
		}
		return c, askOnce(c)
	default:
		c, err := d.DialContext(ctx, "tcp", p.http)
		if err != nil {
			return nil, err
		}
		return c, askOnce(c)
	}
}

func askOnce(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(h1Request); err != nil {
		return err
	}
	return readAnswer(bufio.NewReader(c))
}

func openIdleH2(addr string) (net.Conn, error) {
	c, err := newH2Client(addr)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	if err := c.send(time.Now()); err != nil {
		return nil, err
	}
	_, err = c.readEnd()
	return c, err
}
