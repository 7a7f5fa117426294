package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Why a Frontend cannot be served. The texts follow its address and say what to do.
var (
	ErrNotHere    = errors.New("is not an address of this host, and only the kernel can serve others: come by a NodePort, give the address to an interface of this host, or use nftables")
	ErrBusy       = errors.New("something else listens there: end it, or choose another port; it is tried again")
	ErrPrivileged = errors.New("ports as low as this take CAP_NET_BIND_SERVICE or a lower sysctl net.ipv4.ip_unprivileged_port_start: give one of them, or choose a higher port")
	ErrProtocol   = errors.New("only TCP and UDP can be relayed: use nftables")
)

// open makes the socket of a frontend. No connection comes in before its filter is set.
func (p *Plane) open(e *entry, f *frontend, at netip.AddrPort, r *route) (s socket, err error) {
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		p.filter(c, r)
		return nil
	}}
	// A filter sees nothing of multipath TCP, and splice is of TCP.
	listen.SetMultipathTCP(false)
	family := "4"
	if e.service.IPv6 {
		family = "6"
	}
	p.cfg.Within(func() {
		switch e.service.Protocol {
		case TCP:
			var l net.Listener
			if l, err = listen.Listen(p.life, "tcp"+family, at.String()); err == nil {
				s = p.newTCPSocket(e, f, l.(*net.TCPListener), r)
			}
		case UDP:
			var c net.PacketConn
			if c, err = listen.ListenPacket(p.life, "udp"+family, at.String()); err == nil {
				s, err = p.newUDPSocket(e, f, c.(*net.UDPConn), at, r)
			}
		default:
			err = ErrProtocol
		}
	})
	return s, reason(err)
}

func reason(err error) error {
	for errno, why := range map[syscall.Errno]error{
		unix.EADDRNOTAVAIL: ErrNotHere, unix.EADDRINUSE: ErrBusy, unix.EACCES: ErrPrivileged,
	} {
		if errors.Is(err, errno) {
			return why
		}
	}
	return err
}

// filter sets the filter of a route. Where the kernel takes none, clients that have to hear
// nothing are reset instead.
func (p *Plane) filter(c syscall.RawConn, r *route) {
	if err := setFilter(c, r); err != nil && !errors.Is(err, net.ErrClosed) {
		p.cfg.Log.Warn("clients that should hear nothing are reset instead, because the kernel takes no filter",
			zap.String("service", r.service.Name), zap.Stringer("frontend", r.frontend), zap.Error(err))
	}
}

// dial connects to an endpoint.
func (p *Plane) dial(network string, to netip.AddrPort) (c net.Conn, err error) {
	d := net.Dialer{Timeout: p.cfg.ConnectTimeout}
	p.cfg.Within(func() { c, err = d.DialContext(p.life, network, to.String()) })
	if err != nil {
		return nil, fmt.Errorf("endpoint %v: %w", to, err)
	}
	return c, nil
}

// whileAlive calls f if all must end before it is stopped.
func (p *Plane) whileAlive(f func()) (stop func() bool) { return context.AfterFunc(p.life, f) }

// clientOf is the address of who came, without the forms of the other family.
func clientOf(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
