package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// handshakes makes one full handshake after the other, eight at a time, each on a connection
// of its own. Each waits until the server has closed its side, so that it has done all of it.
func handshakes(ctx context.Context, addr string, d time.Duration) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	config := clientTLS("http/1.1")
	var done, failed atomic.Int64
	var last atomic.Pointer[error]
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := handshake(addr, config); err != nil {
					failed.Add(1)
					last.Store(&err)
					continue
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	o := outcome{requests: int(done.Load()), failed: int(failed.Load())}
	if o.requests == 0 {
		return o, fmt.Errorf("no handshake succeeded: %w", *last.Load())
	}
	return o, nil
}

func handshake(addr string, config *tls.Config) error {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	t := tls.Client(conn, config)
	if err := t.Handshake(); err != nil {
		return err
	}
	if err := t.CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, t)
	return err
}
