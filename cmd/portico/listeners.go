package main

import (
	"context"
	"net"

	"go.uber.org/zap"
)

// listeners are the addresses that this process has taken; nil is one that was not wanted.
type listeners struct {
	http, https, admin net.Listener
}

// listen takes all of them, or none.
func listen(ctx context.Context, flags *serveFlags) (*listeners, error) {
	l := new(listeners)
	for _, one := range []struct {
		flag string
		addr address
		to   *net.Listener
	}{
		{"http", flags.http, &l.http},
		{"https", flags.https, &l.https},
		{"admin", flags.admin, &l.admin},
	} {
		if one.addr == "" {
			continue
		}
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", string(one.addr))
		if err != nil {
			l.close()
			return nil, listenError{one.flag, string(one.addr), err}
		}
		*one.to = ln
	}
	return l, nil
}

// close gives them back. Those that served are closed already.
func (l *listeners) close() {
	for _, ln := range []net.Listener{l.http, l.https, l.admin} {
		if ln != nil {
			_ = ln.Close() // twice is an error, and no harm
		}
	}
}

// announce says where they are, which with port 0 nobody knows otherwise.
func (l *listeners) announce(log *zap.Logger) {
	log.Info("serving", zap.String("http", where(l.http)), zap.String("https", where(l.https)), zap.String("admin", where(l.admin)))
}

func (l *listeners) demoURLs() demoURLs {
	return demoURLs{
		HTTP:  demoURL("http", demoHost, l.http),
		HTTPS: demoURL("https", demoSecureHost, l.https),
		Admin: demoURL("http", "127.0.0.1", l.admin),
	}
}

func where(ln net.Listener) string {
	if ln == nil {
		return "off"
	}
	return ln.Addr().String()
}

// listenError is not about the command line: the same one works once the address is free.
type listenError struct {
	flag, addr string
	err        error
}

// Error names the flag by which another address can be chosen.
func (e listenError) Error() string { return "--" + e.flag + " " + e.addr + ": " + e.reason() }

// Unwrap gives the reason.
func (e listenError) Unwrap() error { return e.err }

// reason drops the address, which the message has already.
func (e listenError) reason() string {
	if op, ok := e.err.(*net.OpError); ok { //nolint:errorlint // what is wrapped deeper names no address
		return op.Err.Error()
	}
	return e.err.Error()
}
