package svcproxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// ping sends an echo request, and wants it "refused" (destination unreachable), "silent" or "answered".
func (w *world) ping(t *testing.T, from *netlab.Host, to netip.Addr, want string) error {
	t.Helper()
	wait := 10 * time.Second
	if want == "silent" {
		wait = netlab.Silence
	}
	got, err := ping(t, from, to, wait)
	if err == nil && got != want {
		err = fmt.Errorf("it is %s", got)
	}
	return err
}

func ping(t *testing.T, from *netlab.Host, to netip.Addr, wait time.Duration) (string, error) {
	t.Helper()
	network, protocol := "ip4:icmp", 1
	var echo icmp.Type = ipv4.ICMPTypeEcho
	if to.Is6() {
		network, protocol, echo = "ip6:ipv6-icmp", 58, ipv6.ICMPTypeEchoRequest
	}
	var c *icmp.PacketConn
	var err error
	from.Do(t, func() { c, err = icmp.ListenPacket(network, from.Addr(to.Is6()).String()) })
	if err != nil {
		return "", err
	}
	defer c.Close()
	packet, err := (&icmp.Message{Type: echo, Body: &icmp.Echo{ID: 4711, Seq: 1}}).Marshal(nil)
	if err != nil {
		return "", err
	}
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.WriteTo(packet, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return "", err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := c.ReadFrom(buf)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return "silent", nil
		}
		if err != nil {
			return "", err
		}
		m, err := icmp.ParseMessage(protocol, buf[:n])
		if err != nil {
			return "", err
		}
		switch m.Type {
		case ipv4.ICMPTypeDestinationUnreachable, ipv6.ICMPTypeDestinationUnreachable:
			return "refused", nil
		case ipv4.ICMPTypeEchoReply, ipv6.ICMPTypeEchoReply:
			return "answered", nil
		}
	}
}
