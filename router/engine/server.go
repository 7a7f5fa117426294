package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Server accepts connections and serves the requests on them.
type Server struct {
	// Handler answers; it must be set.
	Handler Handler
	// Limits bounds what one connection may cost.
	Limits Limits
	// H2C takes HTTP/2 without TLS from clients that begin with its preface (RFC 9113
	// section 3.3). Over TLS it is spoken where the tls.Config offers "h2" and the client
	// chooses it.
	H2C bool
	// ProxyFrom are the networks of load balancers that begin each connection with a header of
	// the PROXY protocol. From there it has to come; from elsewhere it is no request.
	ProxyFrom []netip.Prefix
	// OnPanic, if set, is told of a panic while a connection was served, with the stack. The
	// connection ends and the others go on. If it is nil a panic ends the process.
	OnPanic func(reason any, stack []byte)

	once            sync.Once
	limits          Limits // with defaults
	draining        atomic.Bool
	shards          atomic.Uint32
	requests        atomic.Uint64
	accepted        atomic.Uint64
	refused         atomic.Uint64
	handshakeErrors atomic.Uint64
	tunnels         atomic.Int64
	proxyErrors     atomic.Uint64
	streamed        atomic.Uint64
	streams         StreamHandler // Handler, if it is one

	gathered   budget // of bodies that are taken first
	answers    budget // of answers that are read ahead of their clients
	lookout    lookout
	haste      atomic.Int64 // while it shuts down: when heads and handshakes have to be complete, Unix nanoseconds
	handshakes context.Context
	hurry      context.CancelFunc // ends them

	mu        sync.Mutex
	conns     map[*serverConn]net.Conn
	listeners map[net.Listener]struct{}
	closed    bool
	stopped   chan struct{} // closed with it
	empty     chan struct{} // closed when the last connection has gone while shutting down
}

// ServerStats are counters since the start, and what is open now. Tunnels are connections of
// HTTP/1.1, and streams of HTTP/2.
type ServerStats struct {
	Accepted, Refused, HandshakeErrors, Requests uint64
	// ProxyErrors counts connections without a header of the PROXY protocol where one has to
	// come, and Streams those whose TLS was passed through.
	ProxyErrors, Streams uint64
	Open, Idle, Tunnels  int
	// BufferedBodies and BufferedAnswers are the bytes of Limits of that name that are in use.
	BufferedBodies, BufferedAnswers int64
}

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("engine: server closed")

func (s *Server) prepare() {
	s.once.Do(func() {
		s.limits = s.Limits.withDefaults()
		s.gathered.most, s.answers.most = s.limits.BufferedBodies, s.limits.BufferedAnswers
		s.streams, _ = s.Handler.(StreamHandler)
		s.conns = map[*serverConn]net.Conn{}
		s.listeners = map[net.Listener]struct{}{}
		s.stopped = make(chan struct{})
		s.handshakes, s.hurry = context.WithCancel(context.Background())
	})
}

// Serve accepts plain connections until Shutdown; then it returns ErrServerClosed.
func (s *Server) Serve(ln net.Listener) error { return s.accept(ln, nil) }

// ServeTLS accepts TLS connections until Shutdown; then it returns ErrServerClosed.
func (s *Server) ServeTLS(ln net.Listener, config *tls.Config) error { return s.accept(ln, config) }

func (s *Server) accept(ln net.Listener, config *tls.Config) error {
	s.prepare()
	if !s.track(ln) {
		_ = ln.Close() // it is not going to be used
		return ErrServerClosed
	}
	pause := time.Duration(0)
	for {
		conn, err := ln.Accept()
		if err != nil {
			if s.isClosed() {
				return ErrServerClosed
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors, or a connection that broke before it was taken.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-s.stopped:
			}
			continue
		}
		pause = 0
		s.start(asSocket(conn), config)
	}
}

func (s *Server) start(conn net.Conn, config *tls.Config) {
	s.accepted.Add(1)
	c := newServerConn(s, conn)
	s.mu.Lock()
	full := len(s.conns) >= s.limits.MaxConnections || s.closed
	if !full {
		s.conns[c] = conn
	}
	s.mu.Unlock()
	if full {
		s.refused.Add(1)
		_ = conn.Close() // it was not taken
		return
	}
	go c.serve(conn, config)
}

func (s *Server) track(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) forget(c *serverConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Stats returns the counters.
func (s *Server) Stats() ServerStats {
	s.prepare()
	st := ServerStats{
		Accepted: s.accepted.Load(), Refused: s.refused.Load(),
		HandshakeErrors: s.handshakeErrors.Load(), Requests: s.requests.Load(),
		Tunnels:     int(s.tunnels.Load()),
		ProxyErrors: s.proxyErrors.Load(), Streams: s.streamed.Load(),
		BufferedBodies: s.gathered.used.Load(), BufferedAnswers: s.answers.used.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Open = len(s.conns)
	for c := range s.conns {
		if c.state.Load() == connIdle {
			st.Idle++
		}
	}
	return st
}

// Drain begins the end: connections are still accepted, and each closes with its next
// answer. Those of HTTP/2 are told to open no more streams.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if h := c.h2.Load(); h != nil {
			h.warn()
		}
	}
}

// Shutdown stops accepting, closes idle connections, and waits until the others have
// finished what they are at. What is no request yet, a handshake or a part of a head, has a
// second to become one. When ctx ends it closes those that are left and returns
// ctx's error. The Server cannot be used again.
func (s *Server) Shutdown(ctx context.Context) error {
	s.prepare()
	s.Drain()
	defer s.lookout.close()
	defer s.hasten()()
	empty := s.close()
	for {
		s.wakeIdle()
		select {
		case <-empty:
			return nil
		case <-ctx.Done():
			s.closeAll()
			return ctx.Err()
		case <-time.After(drainLook):
			// A connection may have become idle between its answer and the look at it.
		}
	}
}

// hasten gives handshakes and heads drainIdle to end, and returns what ends that.
func (s *Server) hasten() (stop func()) {
	s.haste.CompareAndSwap(0, time.Now().Add(drainIdle).UnixNano())
	t := time.AfterFunc(drainIdle, s.hurry)
	return func() {
		t.Stop()
		s.hurry()
	}
}

// headsBy is deadline, or the time by which heads have to be complete if that is sooner.
func (s *Server) headsBy(deadline time.Time) time.Time {
	if haste := s.haste.Load(); haste != 0 && haste < deadline.UnixNano() {
		return time.Unix(0, haste)
	}
	return deadline
}

// drainLook is how often Shutdown looks for connections that have become idle.
const drainLook = 100 * time.Millisecond

// close stops the listeners, and returns what is closed once there is no connection.
func (s *Server) close() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.stopped)
	}
	for ln := range s.listeners {
		_ = ln.Close() // it is not used any more either way
	}
	empty := make(chan struct{})
	if len(s.conns) == 0 {
		close(empty)
	} else {
		s.empty = empty
	}
	return empty
}

func (s *Server) wakeIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.wake()
	}
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close() // its goroutine finds out
	}
}
