package announce

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// lan is a switch in a network namespace, and machines around it in theirs.
type lan struct {
	t      *testing.T
	prefix string
	hosts  int
}

var lans atomic.Int32

func newLAN(t *testing.T) *lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it makes network namespaces and sends ARP")
	}
	l := &lan{t: t, prefix: fmt.Sprintf("pann%d-%d-", os.Getpid(), lans.Add(1))}
	l.namespace("switch")
	l.ip("switch", "link add br0 type bridge")
	l.ip("switch", "link set br0 up")
	return l
}

func (l *lan) name(host string) string { return l.prefix + host }

func (l *lan) namespace(host string) {
	l.t.Helper()
	l.run("ip", "netns", "add", l.name(host))
	l.t.Cleanup(func() { l.run("ip", "netns", "del", l.name(host)) })
	l.ip(host, "link set lo up")
}

// host plugs in a machine with the addresses 198.51.100.N and 2001:db8:51::N. Its own Ethernet
// address is 02:00:00:00:00:N.
func (l *lan) host(name string, n int) {
	l.t.Helper()
	l.namespace(name)
	l.hosts++
	cable := fmt.Sprintf("p%d", l.hosts)
	l.run("ip", "-n", l.name("switch"), "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", l.name(name))
	l.ip(name, fmt.Sprintf("link set eth0 address 02:00:00:00:00:%02x", n))
	l.ip("switch", "link set "+cable+" master br0 up")
	l.ip(name, fmt.Sprintf("addr add 198.51.100.%d/24 dev eth0", n))
	l.ip(name, fmt.Sprintf("addr add 2001:db8:51::%x/64 dev eth0 nodad", n))
	l.ip(name, "link set eth0 up")
}

// cable is the switch's end of the cable to the host that was plugged in as the nth.
func (l *lan) ip(host, args string) string {
	l.t.Helper()
	return l.run("ip", append([]string{"-n", l.name(host)}, strings.Fields(args)...)...)
}

func (l *lan) run(name string, args ...string) string {
	l.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// in calls f on a thread that is in the host's namespace. Sockets opened by f stay there.
func (l *lan) in(host string, f func() error) error {
	l.t.Helper()
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromName(l.name(host))
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		errs <- err
	}()
	return <-errs
}

// poke makes the host resolve an address: it sends a datagram there.
func (l *lan) poke(host, addr string) {
	l.t.Helper()
	l.pokeFrom(host, "", addr)
}

// pokeFrom does it from one of the host's addresses, which the others hear of.
func (l *lan) pokeFrom(host, from, addr string) {
	l.t.Helper()
	err := l.in(host, func() error {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("udp", net.JoinHostPort(addr, "9"))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("?"))
		return err
	})
	if err != nil {
		l.t.Logf("poking %s: %v", addr, err)
	}
}

// neighbour is the Ethernet address that the host has for addr, or "".
func (l *lan) neighbour(host, addr string) string {
	fields := strings.Fields(l.ip(host, "neigh show "+addr))
	for i, f := range fields {
		if f == "lladdr" {
			return fields[i+1]
		}
	}
	return ""
}

// resolves pokes until the host has this Ethernet address for addr.
func (l *lan) resolves(host, addr, want string) {
	l.t.Helper()
	eventually(l.t, func() (string, bool) {
		l.poke(host, addr)
		got := l.neighbour(host, addr)
		return fmt.Sprintf("%s has %q for %s, want %q", host, got, addr, want), got == want
	})
}

// eventually looks again and again, because nobody tells when a kernel has learnt something.
func eventually(t *testing.T, look func() (string, bool)) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		state, ok := look()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(state)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

const childVar = "PORTICO_ANNOUNCE_TEST_NODE"

// childConfig is what a node of a test does.
type childConfig struct {
	Duties     map[netip.Addr]Duty
	Interfaces []string
	Announcer  *childAnnouncer
	DataPlane  *childDataPlane
}

// childEvent is what a node of a test says, one JSON object a line.
type childEvent struct {
	Announced netip.Addr `json:",omitzero"`
	Conflict  *Conflict  `json:",omitempty"`
	// Nowhere is an address that no interface is for, Have are the interfaces that there are.
	Nowhere netip.Addr `json:",omitzero"`
	Have    []string   `json:",omitempty"`
	Event   *Event     `json:",omitempty"`
	Ready   bool       `json:",omitempty"`
	Failed  string     `json:",omitempty"`
}

func runChild(text string) int {
	var config childConfig
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	says := make(chan childEvent, 1024)
	go func() {
		out := json.NewEncoder(os.Stdout)
		for e := range says {
			_ = out.Encode(e)
		}
	}()
	var err error
	switch {
	case config.Announcer != nil:
		err = config.Announcer.run(ctx, says)
	case config.DataPlane != nil:
		err = config.DataPlane.run(ctx, says)
	default:
		r := NewResponder(ResponderConfig{
			Interfaces:  config.Interfaces,
			Announced:   func(a netip.Addr) { says <- childEvent{Announced: a} },
			Conflict:    func(c Conflict) { says <- childEvent{Conflict: &c} },
			NoInterface: func(a netip.Addr, have []string) { says <- childEvent{Nowhere: a, Have: have} },
		})
		r.Set(config.Duties)
		err = r.Run(ctx)
	}
	if err != nil {
		_ = json.NewEncoder(os.Stdout).Encode(childEvent{Failed: err.Error()})
		return 1
	}
	return 0
}

// node is a process of its own on a host of the LAN.
type node struct {
	t    *testing.T
	cmd  *exec.Cmd
	says chan childEvent
}

func (l *lan) node(host string, config childConfig) *node {
	l.t.Helper()
	text, err := json.Marshal(config)
	if err != nil {
		l.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", l.name(host), self)
	cmd.Env = append(os.Environ(), childVar+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	n := &node{t: l.t, cmd: cmd, says: make(chan childEvent, 4096)}
	go func() {
		defer close(n.says)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e childEvent
			if json.Unmarshal(lines.Bytes(), &e) == nil {
				n.says <- e
			}
		}
	}()
	l.t.Cleanup(n.kill)
	return n
}

// kill ends the process without a word: `ip netns exec` has become it.
func (n *node) kill() { n.signal(syscall.SIGKILL) }

// stop has the process end in order.
func (n *node) stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
}

// ended waits until a process that was stopped has ended.
func (n *node) ended() {
	n.t.Helper()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case _, open := <-n.says:
			if open {
				continue
			}
			if err := n.cmd.Wait(); err != nil {
				n.t.Error(err)
			}
			return
		case <-timeout:
			n.t.Error("a node that was stopped does not end")
			n.kill()
			return
		}
	}
}

func (n *node) signal(s os.Signal) {
	if n.cmd.ProcessState != nil {
		return
	}
	_ = n.cmd.Process.Signal(s)
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		for range n.says {
		}
		_ = n.cmd.Wait()
	}
}

// said waits until the node says something of this kind.
func (n *node) said(what string, is func(childEvent) bool) childEvent {
	n.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case e, open := <-n.says:
			if !open {
				n.t.Fatalf("the node ended and did not say %s", what)
			}
			if e.Failed != "" {
				n.t.Fatal(e.Failed)
			}
			if is(e) {
				return e
			}
		case <-timeout:
			n.t.Fatalf("the node did not say %s", what)
		}
	}
}

func (n *node) announced(addr string) {
	n.t.Helper()
	n.said("that it announces "+addr, func(e childEvent) bool { return e.Announced == netip.MustParseAddr(addr) })
}
