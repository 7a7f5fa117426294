package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"time"
)

// PoolConfig says how a Pool connects. The zero value of a member means its default.
type PoolConfig struct {
	// MaxIdle is how many connections are kept for reuse. Default 320, as
	// upstream-keepalive-connections of ingress-nginx: one connection of HTTP/2 alone can ask for
	// h2MaxStreams at a time.
	MaxIdle int
	// IdleTimeout is how long one is kept. Default 60 s, as nginx's upstream keepalive_timeout.
	IdleTimeout time.Duration
	// ConnectTimeout bounds connecting. Default 5 s.
	ConnectTimeout time.Duration
	// ReadTimeout is the longest wait for the upstream to send something. Default 60 s.
	ReadTimeout time.Duration
	// WriteTimeout is the longest wait for the upstream to take something. Default 60 s.
	WriteTimeout time.Duration
	// MaxHead and MaxFields bound the head of an answer, in bytes and in fields.
	// Defaults 64 KiB and 500.
	MaxHead, MaxFields int
	// Protocol is what the upstream speaks. Over TLS it is HTTP/2 by ALPN, without TLS by prior
	// knowledge (RFC 9113 section 3).
	Protocol Protocol
	// TLS is for upstreams that speak it; nil: they do not. For HTTP2 its NextProtos offer "h2".
	TLS *tls.Config
	// DialContext connects; nil means a net.Dialer.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

func (c PoolConfig) withDefaults() PoolConfig {
	setInt := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	setTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	setInt(&c.MaxIdle, 320)
	setInt(&c.MaxHead, 64<<10)
	setInt(&c.MaxFields, 500)
	setTime(&c.IdleTimeout, 60*time.Second)
	setTime(&c.ConnectTimeout, 5*time.Second)
	setTime(&c.ReadTimeout, 60*time.Second)
	setTime(&c.WriteTimeout, 60*time.Second)
	if c.DialContext == nil {
		c.DialContext = (&net.Dialer{}).DialContext
	}
	return c
}

// Protocol is what an upstream speaks.
type Protocol uint8

// The protocols of upstreams.
const (
	ProtocolHTTP1 Protocol = iota
	ProtocolHTTP2
)

// Pool keeps the connections to one upstream address. Its methods may be called from
// many goroutines; taking and giving back a connection takes no lock.
//
// The idle connections stand in a row of slots. Both taking and giving back go along it
// from the front, so that the front ones stay busy and the rest age and are closed.
type Pool struct {
	address string
	cfg     PoolConfig
	slots   atomic.Pointer[[]atomic.Pointer[clientConn]]
	idle    atomic.Int32
	open    atomic.Int32
	closed  atomic.Bool
	sweeps  atomic.Bool // a sweep is due
	h2      h2pool
}

// NewPool returns an empty pool of connections to address ("ip:port").
func NewPool(address string, cfg PoolConfig) *Pool {
	return &Pool{address: address, cfg: cfg.withDefaults()}
}

// Address is where the pool connects to.
func (p *Pool) Address() string { return p.address }

// Open counts the connections there are, in use and idle.
func (p *Pool) Open() int { return int(p.open.Load()) }

// Close ends the idle connections. Those in use end when their exchange does.
func (p *Pool) Close() {
	p.closed.Store(true)
	p.closeIdle(time.Time{})
	p.h2.close()
}

// get returns an idle connection that is still good, or nil.
func (p *Pool) get() *clientConn {
	for p.idle.Load() > 0 {
		u := p.take()
		if u == nil {
			return nil
		}
		if u.quiet() {
			return u
		}
		u.close()
	}
	return nil
}

func (p *Pool) take() *clientConn {
	slots := p.slots.Load()
	if slots == nil {
		return nil
	}
	for i := range *slots {
		slot := &(*slots)[i]
		if slot.Load() == nil {
			continue
		}
		if u := slot.Swap(nil); u != nil {
			p.idle.Add(-1)
			return u
		}
	}
	return nil
}

// put takes back a connection that can serve another request.
func (p *Pool) put(u *clientConn, now time.Time) {
	if p.closed.Load() {
		u.close()
		return
	}
	u.idleSince = now
	slots := p.row()
	for i := range slots {
		if slots[i].Load() == nil && slots[i].CompareAndSwap(nil, u) {
			p.idle.Add(1)
			p.sweepLater()
			if p.closed.Load() { // Close may have walked past this slot
				p.closeIdle(time.Time{})
			}
			return
		}
	}
	u.close()
}

// row makes the slots on first use: most endpoints of a big cluster see no traffic here.
func (p *Pool) row() []atomic.Pointer[clientConn] {
	if slots := p.slots.Load(); slots != nil {
		return *slots
	}
	slots := make([]atomic.Pointer[clientConn], p.cfg.MaxIdle)
	p.slots.CompareAndSwap(nil, &slots)
	return *p.slots.Load()
}

// sweepLater closes aged connections once their time has come.
func (p *Pool) sweepLater() {
	if p.sweeps.Load() || !p.sweeps.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(p.cfg.IdleTimeout, func() {
		p.closeIdle(time.Now().Add(-p.cfg.IdleTimeout))
		p.sweeps.Store(false)
		if p.idle.Load() > 0 && !p.closed.Load() {
			p.sweepLater()
		}
	})
}

// closeIdle closes the connections that have been idle since before then; all of them
// if then is zero.
func (p *Pool) closeIdle(then time.Time) {
	slots := p.slots.Load()
	if slots == nil {
		return
	}
	for i := range *slots {
		u := (*slots)[i].Swap(nil) // ours alone from here on
		if u == nil {
			continue
		}
		p.idle.Add(-1)
		switch {
		case then.IsZero() || u.idleSince.Before(then):
			u.close()
		case (*slots)[i].CompareAndSwap(nil, u):
			p.idle.Add(1)
		default:
			u.close() // the slot was filled meanwhile
		}
	}
	if !then.IsZero() && p.closed.Load() { // Close may have looked into a slot before it was filled again
		p.closeIdle(time.Time{})
	}
}

// upstream returns where the next request goes, and whether that had another before. A
// connection that begins with a header, or that has to be made, is made within that time.
func (p *Pool) upstream(header []byte, timeout time.Duration) (u upstream, reused bool, failed *UpstreamError) {
	if p.cfg.Protocol == ProtocolHTTP2 {
		return p.callFor(header, timeout)
	}
	if header == nil {
		if u := p.get(); u != nil {
			return u, true, nil
		}
	}
	fresh, failed := p.dial(header, timeout)
	if failed != nil {
		return nil, false, failed
	}
	return fresh, false, nil
}

// callFor is upstream for HTTP/2. Its connections are for all clients, so that none can begin
// with the address of one.
func (p *Pool) callFor(header []byte, timeout time.Duration) (upstream, bool, *UpstreamError) {
	if header != nil {
		return nil, false, &UpstreamError{Cause: CauseProtocol, Unsent: true, Err: errProxyH2}
	}
	u, reused, failed := p.call(timeout)
	if failed != nil { // and u is a nil pointer, which is no nil upstream
		return nil, false, failed
	}
	return u, reused, nil
}

var (
	errProxyH2   = errors.New("the PROXY protocol is not supported with HTTP/2 to the upstream")
	errUpgradeH2 = errors.New("an upgrade (WebSocket) is not supported with HTTP/2 to the upstream")
)

// dial makes a new connection of HTTP/1.1 within that time. It begins with the header, if there
// is one.
func (p *Pool) dial(header []byte, timeout time.Duration) (*clientConn, *UpstreamError) {
	conn, failed := p.connect(header, p.cfg.TLS, timeout)
	if failed != nil {
		return nil, failed
	}
	return p.adopt(conn), nil
}

// connect makes a connection that begins with the header, if there is one, and then has TLS
// over it, if that is wanted.
func (p *Pool) connect(header []byte, secure *tls.Config, timeout time.Duration) (net.Conn, *UpstreamError) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := p.cfg.DialContext(ctx, "tcp", p.address)
	if err == nil {
		conn = asSocket(conn)
	}
	if err == nil && len(header) > 0 {
		if _, err = conn.Write(header); err != nil { // a new socket has room for it
			_ = conn.Close() // it is of no use
		}
	}
	if err != nil {
		return nil, &UpstreamError{Cause: CauseConnect, Unsent: true, Err: asTimeout(err)}
	}
	if secure == nil {
		return conn, nil
	}
	t := tls.Client(conn, secure)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // nothing can be done about it
		return nil, &UpstreamError{Cause: CauseTLS, Unsent: true, Err: asTimeout(err)}
	}
	return t, nil
}

func (p *Pool) adopt(conn net.Conn) *clientConn {
	u := &clientConn{pool: p}
	u.init(conn)
	p.open.Add(1)
	return u
}
