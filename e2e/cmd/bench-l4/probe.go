package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// serve answers each connection with one byte, the server's name, and waits for its end.
func serve(l net.Listener, name byte) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := c.Write([]byte{name}); err == nil {
				_, _ = c.Read(make([]byte, 1))
			}
		}()
	}
}

// dial connects by system calls alone, so that it is all in the caller's thread and its
// namespace, and tells how long connect(2) took. Whoever closes the socket resets the connection.
func dial(to netip.AddrPort, wait time.Duration) (fd int, took time.Duration, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, 0, err
	}
	limit := unix.NsecToTimeval(int64(wait))
	err = errors.Join(
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit), // holds for connect
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
	)
	addr := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	began := time.Now()
	if err == nil {
		err = unix.Connect(fd, addr)
	}
	took = time.Since(began)
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, fmt.Errorf("connect to %s: %w", to, err)
	}
	return fd, took, nil
}

// ask makes a new connection and gives the name of who answers.
func ask(to netip.AddrPort, wait time.Duration) (name byte, err error) {
	fd, _, err := dial(to, wait)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 1)
	n, err := unix.Read(fd, buf)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s says nothing: %w", to, err)
	}
	return buf[0], nil
}

const (
	// between is how long to wait between two connections that ask the same.
	between = 300 * time.Microsecond
	// asking is how long one connection may take before another one is tried.
	asking = 250 * time.Millisecond
)

// askFor makes new connections until the one called name answers.
func askFor(ctx context.Context, to netip.AddrPort, name byte, alive func() error) error {
	for {
		got, err := ask(to, asking)
		if err == nil && got == name {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%q answers at %s, not %q", got, to, name)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		}
		if err := alive(); err != nil {
			return err
		}
		time.Sleep(between)
	}
}

// pairs times connect(2) to an address and through a Service, in turns.
func pairs(ctx context.Context, direct, service netip.AddrPort, n int) (directly, through []time.Duration, err error) {
	for i := range n + n/10 {
		for _, one := range []struct {
			to   netip.AddrPort
			took *[]time.Duration
		}{{direct, &directly}, {service, &through}} {
			fd, took, err := dial(one.to, time.Second)
			if err != nil {
				return nil, nil, err
			}
			_ = unix.Close(fd)
			if i >= n/10 { // the first ones warm up
				*one.took = append(*one.took, took)
			}
		}
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
	}
	return directly, through, nil
}
