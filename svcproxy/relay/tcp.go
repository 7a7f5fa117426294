package relay

import (
	"cmp"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// acceptPause is how long nothing is accepted when this host has no room for a connection.
const acceptPause = 100 * time.Millisecond

// tcpSocket accepts connections.
type tcpSocket struct {
	plane    *Plane
	entry    *entry
	counters *counters
	listener *net.TCPListener
	route    atomic.Pointer[route]
	closed   chan struct{}
	drops    dropCounter
}

func (p *Plane) newTCPSocket(e *entry, f *frontend, l *net.TCPListener, r *route) *tcpSocket {
	s := &tcpSocket{plane: p, entry: e, counters: &f.counters, listener: l, closed: make(chan struct{})}
	s.route.Store(r)
	p.loops.Go(s.accept)
	return s
}

func (s *tcpSocket) use(r *route) {
	s.route.Store(r)
	if c, err := s.listener.SyscallConn(); err == nil {
		s.plane.filter(c, r)
	}
}

func (s *tcpSocket) dropped() uint32 { return s.drops.since(s.listener) }

func (s *tcpSocket) close() {
	close(s.closed)
	_ = s.listener.Close()
}

func (s *tcpSocket) accept() {
	for {
		c, err := s.listener.AcceptTCP()
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
		case !s.plane.connections.take(&s.entry.flows):
			s.counters.limited.Add(1)
			reset(c)
			continue
		}
		s.counters.open.Add(1)
		s.plane.flow.Go(func() {
			defer s.plane.connections.giveBack(&s.entry.flows)
			defer s.counters.open.Add(-1)
			s.serve(c)
		})
	}
}

// serve carries one connection to its end.
func (s *tcpSocket) serve(client *net.TCPConn) {
	r := s.route.Load()
	from := clientOf(client.RemoteAddr().(*net.TCPAddr).AddrPort())
	among, outcome := r.decide(from.Addr())
	if outcome != Forwarded {
		s.counters.denied.Add(1)
		reset(client)
		return
	}
	stop := s.plane.whileAlive(func() { reset(client) })
	defer stop()
	backend, endpoint := s.connect(r, from, among)
	if backend == nil {
		s.counters.unreachable.Add(1)
		reset(client)
		return
	}
	stopBackend := s.plane.whileAlive(func() { reset(backend) })
	defer stopBackend()
	if v := r.service.ProxyProtocol; v != 0 {
		to := clientOf(client.LocalAddr().(*net.TCPAddr).AddrPort())
		if _, err := backend.Write(appendProxyHeader(nil, v, from, to)); err != nil {
			reset(client)
			reset(backend)
			return
		}
	}
	s.counters.connections.Add(1)
	carry(client, backend, s.counters, endpoint)
}

// connect tries endpoints until one takes the connection; nil: none did.
func (s *tcpSocket) connect(r *route, from netip.AddrPort, among []netip.AddrPort) (*net.TCPConn, *endpointCounters) {
	for _, endpoint := range s.entry.affinities.order(r.service, from.Addr(), among, time.Now()) {
		counted := s.plane.endpoints.connection(r.service, endpoint)
		c, err := s.plane.dial("tcp", endpoint)
		if err == nil {
			s.entry.affinities.stay(r.service, from.Addr(), endpoint, time.Now())
			return c.(*net.TCPConn), counted
		}
		counted.failed(err)
		s.counters.connectFailures.Add(1)
		s.plane.cfg.ConnectFailed(r.service.Name, endpoint)
		s.plane.cfg.Log.Debug("an endpoint takes no connection", zap.String("service", r.service.Name), zap.Error(err))
	}
	return nil, nil
}

// reset ends a connection as somebody does who never had it.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// carry moves bytes both ways until both ends are done, or one breaks off; then so does the other.
func carry(client, backend *net.TCPConn, c *counters, e *endpointCounters) {
	defer client.Close()
	defer backend.Close()
	fromClient, toClient := meters(c, e)
	done := make(chan struct{})
	go func() {
		defer close(done)
		oneWay(backend, client, fromClient)
	}()
	oneWay(client, backend, toClient)
	<-done
}

func oneWay(to, from *net.TCPConn, bytes meter) {
	if err := pump(to, from, bytes); err != nil {
		reset(to)
		reset(from)
		return
	}
	_ = to.CloseWrite()
}

// pump moves bytes until the sender is done. They go by splice(2) and are not copied into this
// process; the pipe that takes is borrowed only while there are bytes, so that an idle connection
// has nothing but its sockets.
func pump(to, from *net.TCPConn, bytes meter) error {
	raw, err := from.SyscallConn()
	if err != nil {
		return err
	}
	for chunk := (io.LimitedReader{R: from}); ; {
		chunk.N, err = arrived(raw)
		if err != nil || chunk.N == 0 {
			return err
		}
		n, err := to.ReadFrom(&chunk)
		bytes.add(int(n))
		if err != nil {
			return err
		}
	}
}

// queued is how many bytes can be read.
func queued(fd uintptr) int64 {
	n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	if err != nil {
		return 0
	}
	return int64(n)
}

// arrived waits for bytes and gives how many there are; 0: the sender is done.
func arrived(raw syscall.RawConn) (n int64, err error) {
	waited := raw.Read(func(fd uintptr) bool {
		if n, err = queued(fd), nil; n > 0 {
			return true
		}
		// Nothing yet, or the end.
		var one [1]byte
		count := 0
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			count, _, err = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		}
		if count > 0 { // they came just now
			n = max(queued(fd), 1)
		}
		return !errors.Is(err, unix.EAGAIN)
	})
	if err = cmp.Or(waited, err); err != nil {
		return 0, err
	}
	return n, nil
}
