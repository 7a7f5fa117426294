package relay

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxDatagram is what UDP can carry.
const maxDatagram = 1 << 16

// errNoAnswer is how a UDP session ends to which nothing came back.
var errNoAnswer = errors.New("no answer")

// datagrams are borrowed while one is on its way.
var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// udpSocket receives datagrams, and keeps a session for each client.
type udpSocket struct {
	plane    *Plane
	entry    *entry
	counters *counters
	conn     *net.UDPConn
	route    atomic.Pointer[route]
	closed   chan struct{}

	mu       sync.Mutex
	sessions map[sessionKey]*session
	drops    dropCounter
}

// sessionKey is a client, and which of this host's addresses it sends to.
type sessionKey struct {
	client netip.AddrPort
	local  netip.Addr
}

// session is one client's with one endpoint.
type session struct {
	key      sessionKey
	endpoint netip.AddrPort
	conn     *net.UDPConn
	// control makes answers come from where the client sent to.
	control  []byte
	last     atomic.Int64 // when the last datagram came, in ns
	answered atomic.Bool

	// counted is nil if its endpoint is not.
	counted              *endpointCounters
	fromClient, toClient meter
	fails                sync.Once
}

// failed counts a session that came to nothing.
func (v *session) failed(err error) { v.fails.Do(func() { v.counted.failed(err) }) }

func (p *Plane) newUDPSocket(e *entry, f *frontend, c *net.UDPConn, at netip.AddrPort, r *route) (*udpSocket, error) {
	s := &udpSocket{plane: p, entry: e, counters: &f.counters, conn: c, closed: make(chan struct{}), sessions: map[sessionKey]*session{}}
	s.route.Store(r)
	if at.Addr().IsUnspecified() {
		if err := wantPacketInfo(c, at.Addr().Is6()); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	p.loops.Go(s.receive)
	return s, nil
}

func wantPacketInfo(c *net.UDPConn, ipv6 bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if ipv6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = unix.SetsockoptInt(int(fd), level, option, 1) }); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", result)
}

// use moves sessions whose endpoint is not among those of their client any more: their next
// datagram goes to another one.
func (s *udpSocket) use(r *route) {
	s.route.Store(r)
	if c, err := s.conn.SyscallConn(); err == nil {
		s.plane.filter(c, r)
	}
	s.endSessions(func(v *session) bool {
		among, _ := r.decide(v.key.client.Addr())
		return !slices.Contains(among, v.endpoint)
	})
}

func (s *udpSocket) dropped() uint32 { return s.drops.since(s.conn) }

func (s *udpSocket) close() {
	close(s.closed)
	_ = s.conn.Close()
	s.endSessions(func(*session) bool { return true })
}

func (s *udpSocket) endSessions(which func(*session) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, v := range s.sessions {
		if which(v) {
			delete(s.sessions, key)
			_ = v.conn.Close()
		}
	}
}

func (s *udpSocket) endSession(v *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[v.key] == v {
		delete(s.sessions, v.key)
	}
	_ = v.conn.Close()
}

// receive takes datagrams of clients until the socket is closed.
func (s *udpSocket) receive() {
	buf, oob := make([]byte, maxDatagram), make([]byte, 128)
	for {
		n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case <-s.closed:
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		local, zone := destination(oob[:oobn])
		s.forward(buf[:n], from, local, zone)
	}
}

// destination is where a datagram was sent to, and the interface it came by if the address needs it.
func destination(oob []byte) (local netip.Addr, zone uint32) {
	for len(oob) > 0 {
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return local, zone
		}
		switch {
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(data[4:8])), 0
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if local = netip.AddrFrom16([16]byte(data[:16])); local.IsLinkLocalUnicast() {
				zone = binary.NativeEndian.Uint32(data[16:])
			}
			return local, zone
		}
		oob = rest
	}
	return local, zone
}

// replyControl makes a datagram come from an address of this host; not valid: the socket's own.
func replyControl(local netip.Addr, zone uint32) []byte {
	switch {
	case local.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
	case local.Is6():
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16(), Ifindex: zone})
	}
	return nil
}

// forward sends one datagram by its client's session, or by a new one.
func (s *udpSocket) forward(datagram []byte, from netip.AddrPort, local netip.Addr, zone uint32) {
	key := sessionKey{from, local}
	s.mu.Lock()
	v := s.sessions[key]
	s.mu.Unlock()
	if v == nil {
		if v = s.newSession(key, zone); v == nil {
			return
		}
	}
	v.last.Store(time.Now().UnixNano())
	n, err := v.conn.Write(datagram)
	v.fromClient.add(n)
	if errors.Is(err, unix.ECONNREFUSED) {
		s.refused(v)
	}
}

// newSession picks an endpoint; nil: the client may not, or there is no room.
func (s *udpSocket) newSession(key sessionKey, zone uint32) *session {
	r := s.route.Load()
	client := clientOf(key.client).Addr()
	among, outcome := r.decide(client)
	if outcome != Forwarded {
		s.counters.denied.Add(1)
		return nil
	}
	if !s.plane.sessions.take(&s.entry.flows) {
		s.counters.limited.Add(1)
		return nil
	}
	v := &session{key: key, control: replyControl(key.local, zone)}
	for _, v.endpoint = range s.entry.affinities.order(r.service, client, among, time.Now()) {
		v.counted = s.plane.endpoints.connection(r.service, v.endpoint)
		v.fromClient, v.toClient = meters(s.counters, v.counted)
		c, err := s.plane.dial("udp", v.endpoint)
		if err == nil {
			v.conn = c.(*net.UDPConn)
			break
		}
		v.counted.failed(err)
		s.counters.connectFailures.Add(1)
	}
	if v.conn == nil || !s.enter(v) {
		s.plane.sessions.giveBack(&s.entry.flows)
		s.counters.unreachable.Add(1)
		return nil
	}
	s.entry.affinities.stay(r.service, client, v.endpoint, time.Now())
	s.counters.connections.Add(1)
	s.counters.open.Add(1)
	v.last.Store(time.Now().UnixNano())
	s.plane.loops.Go(func() {
		defer s.plane.sessions.giveBack(&s.entry.flows)
		defer s.counters.open.Add(-1)
		s.answers(v)
		s.endSession(v)
		if !v.answered.Load() {
			v.failed(errNoAnswer)
		}
	})
	return v
}

// enter makes a session known, unless the socket has been closed meanwhile.
func (s *udpSocket) enter(v *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		_ = v.conn.Close()
		return false
	default:
		s.sessions[v.key] = v
		return true
	}
}

// refused ends a session whose endpoint has nobody who listens: the client's next datagram goes to
// any endpoint.
func (s *udpSocket) refused(v *session) {
	s.counters.connectFailures.Add(1)
	if !v.answered.Load() {
		v.failed(unix.ECONNREFUSED)
	}
	s.entry.affinities.leave(clientOf(v.key.client).Addr(), v.endpoint)
	s.endSession(v)
}

// answers carries those of the endpoint until the session has been idle for too long, or is ended.
func (s *udpSocket) answers(v *session) {
	raw, err := v.conn.SyscallConn()
	if err != nil {
		return
	}
	for {
		timeout := s.plane.cfg.UDPTimeout
		if !v.answered.Load() {
			timeout /= 4
		}
		idle := time.Unix(0, v.last.Load()).Add(timeout)
		if time.Now().After(idle) {
			return
		}
		_ = v.conn.SetReadDeadline(idle)
		buf, n, err := borrowDatagram(raw)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue // a datagram of the client may have moved it
		case errors.Is(err, unix.ECONNREFUSED):
			s.refused(v)
			return
		case err != nil:
			return
		}
		v.answered.Store(true)
		v.last.Store(time.Now().UnixNano())
		_, _, _ = s.conn.WriteMsgUDPAddrPort(buf[:n], v.control, v.key.client)
		v.toClient.add(n)
		datagrams.Put(buf)
	}
}

// borrowDatagram waits for one, and has a buffer only when there is one.
func borrowDatagram(raw syscall.RawConn) (buf *[maxDatagram]byte, n int, err error) {
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		buf = datagrams.Get().(*[maxDatagram]byte)
		for n, failed = 0, unix.EINTR; failed == unix.EINTR; {
			n, _, failed = unix.Recvfrom(int(fd), buf[:], unix.MSG_DONTWAIT)
		}
		if failed != nil {
			datagrams.Put(buf)
		}
		return failed != unix.EAGAIN
	})
	if err == nil {
		err = failed
	}
	return buf, n, err
}
