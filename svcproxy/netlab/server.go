package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Answer is what a server said: who it is and from which address it was asked.
type Answer struct {
	Server string
	Client netip.Addr
}

// Serve answers on TCP and UDP at a port of the host, of both families, with the host's name and
// the address of who asks.
func (h *Host) Serve(t testing.TB, port uint16) {
	t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	var err, err2 error
	h.Do(t, func() {
		tcp, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		udp, err2 = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	})
	if err = errors.Join(err, err2); err != nil {
		t.Fatalf("%s: %v", h.Name, err)
	}
	t.Cleanup(func() { _ = tcp.Close(); _ = udp.Close() })
	go h.serveTCP(tcp)
	go h.serveUDP(udp)
}

func (h *Host) answer(client net.Addr) []byte {
	host, _, _ := net.SplitHostPort(client.String())
	return []byte(h.Name + " " + strings.TrimPrefix(host, "::ffff:") + "\n")
}

// serveTCP answers every line, until the client hangs up.
func (h *Host) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 1500)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
				if _, err := c.Write(h.answer(c.RemoteAddr())); err != nil {
					return
				}
			}
		}()
	}
}

func (h *Host) serveUDP(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		_, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(h.answer(from), from)
	}
}

// What becomes of a connection that nobody answers.
var (
	// ErrRefused: a reset or an ICMP error.
	ErrRefused = errors.New("refused")
	// ErrSilent: nothing came back.
	ErrSilent = errors.New("silent")
)

// Silence is how long to wait for an answer before it is taken not to come.
const Silence = 400 * time.Millisecond

// patience is how long an answer may take on a busy machine; who does not wait for silence has it.
const patience = 10 * time.Second

// Ask makes a connection (network is tcp or udp) from the host and gives the answer, ErrRefused
// or ErrSilent.
func (h *Host) Ask(t testing.TB, network string, to netip.AddrPort) (Answer, error) {
	t.Helper()
	return h.AskFrom(t, network, netip.AddrPort{}, to, Silence)
}

// AskPatiently is Ask for where an answer has to come, however busy the machine is.
func (h *Host) AskPatiently(t testing.TB, network string, to netip.AddrPort) (Answer, error) {
	t.Helper()
	return h.AskFrom(t, network, netip.AddrPort{}, to, patience)
}

// AskFrom is Ask from an address of the host's own choice.
func (h *Host) AskFrom(t testing.TB, network string, from, to netip.AddrPort, wait time.Duration) (Answer, error) {
	t.Helper()
	c, err := h.Dial(t, network, from, to, wait)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	return Talk(c, wait)
}

// Dial opens a connection from the host.
func (h *Host) Dial(t testing.TB, network string, from, to netip.AddrPort, wait time.Duration) (net.Conn, error) {
	t.Helper()
	d := net.Dialer{Timeout: wait}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
	}
	var c net.Conn
	var err error
	h.Do(t, func() { c, err = d.DialContext(context.Background(), network, to.String()) })
	return c, outcome(err)
}

// Talk says a line on c and reads the answer.
func Talk(c net.Conn, wait time.Duration) (Answer, error) {
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return Answer{}, outcome(err)
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		return Answer{}, outcome(err)
	}
	server, client, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	addr, err := netip.ParseAddr(client)
	return Answer{server, addr}, err
}

func outcome(err error) error {
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	// A packet that is rejected on its way out is an error of the call that sends it.
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrSilent, err)
	}
	return err
}
