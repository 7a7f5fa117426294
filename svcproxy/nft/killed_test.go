package nft

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// A process that is to be killed is this same program.
const victimVar = "PORTICO_TEST_VICTIM"

func TestMain(m *testing.M) {
	if text := os.Getenv(victimVar); text != "" {
		if err := runVictim(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// errand is what the process is about to do when it is killed, after so many steps.
type errand struct {
	Name  string
	Steps int
}

// killing is a change that a process is killed in the middle of.
type killing struct {
	// before is there when the process starts, and after is what it makes of it, besides the
	// Services of servers.
	before, after func(step int) []*Service
	// damage is what somebody else has done before it started.
	damage string
	// cold: there is nothing in the kernel when it starts.
	cold bool
	// run gets a process to where it is killed: it calls mortal before.
	run func(p *Plane, after Changes, mortal func()) error
}

func none(int) []*Service { return nil }

// changing is a Service that changes, on a port of its own.
func changing(port uint16, affinity time.Duration, endpoints ...string) *Service {
	s := &Service{
		Name: fmt.Sprint("changing-", port), Protocol: 6, Affinity: affinity,
		Frontends: []Frontend{{Addr: netip.MustParseAddr("172.30.0.9"), Port: port, Kind: External}},
	}
	for _, e := range endpoints {
		s.Cluster = append(s.Cluster, ap(e))
	}
	return s
}

// some are three of them; step makes shapes that no earlier one had.
func some(int) []*Service {
	return []*Service{
		changing(80, 0, "10.180.0.10:8080"), changing(81, 0, "10.180.0.10:8080", "10.180.0.11:8080"),
		changing(82, time.Hour, "10.180.0.10:8080"),
	}
}

func others(step int) []*Service {
	return []*Service{
		changing(80, 0, "10.180.0.11:8080"), changing(82, time.Duration(step+2)*time.Second, "10.180.0.10:8080", "10.180.0.11:8080"),
		changing(83, 0, "10.180.0.11:8080"),
	}
}

func applied(p *Plane, after Changes, mortal func()) error {
	mortal()
	return p.Apply(after)
}

// changed adopts what is there before it makes the change.
func changed(before func(int) []*Service) func(p *Plane, after Changes, mortal func()) error {
	return func(p *Plane, after Changes, mortal func()) error {
		if err := p.Apply(Changes{Complete: true, Put: append(steadyServices(), before(0)...), Node: node}); err != nil {
			return err
		}
		mortal()
		return p.Apply(after)
	}
}

var killings = map[string]killing{
	"cold start":     {before: none, after: some, cold: true, run: applied},
	"adoption":       {before: some, after: others, run: applied},
	"one difference": {before: some, after: func(int) []*Service { return append(some(0)[1:], changing(80, 0, "10.180.0.11:8080")) }, run: changed(some)},
	"another shape": {before: some, after: func(step int) []*Service {
		return append(some(0)[1:], changing(80, time.Duration(step+2)*time.Second, "10.180.0.10:8080", "10.180.0.11:8080"))
	}, run: changed(some)},
	"shapes that are not needed": {before: some, after: some, run: shapesLeft},
	// So many that they are more than one transaction, with rules that are not the right ones.
	"another table": {
		before: some, after: func(step int) []*Service { return append(others(step), manyServices(1000, 1)...) },
		damage: "add rule inet TABLE filter-forward counter", run: applied,
	},
	"repair": {
		before: some, after: some, run: mended,
	},
	"cleanup": {before: some, after: some, run: func(p *Plane, _ Changes, mortal func()) error {
		mortal()
		return p.Cleanup()
	}},
}

// shapesLeft leaves so many shapes behind that the next change removes them.
func shapesLeft(p *Plane, after Changes, mortal func()) error {
	if err := p.Apply(after); err != nil {
		return err
	}
	for i := 2; len(p.spare) == 0; i++ {
		if err := p.Apply(Changes{Put: []*Service{changing(80, time.Duration(i)*time.Second, "10.180.0.10:8080")}}); err != nil {
			return err
		}
	}
	mortal()
	return p.Apply(after)
}

// mended waits until what somebody else damages is repaired.
func mended(p *Plane, after Changes, mortal func()) error {
	if err := p.Apply(after); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	mortal()
	go p.Run(ctx)
	before := p.Stats()
	damage := `add chain inet TABLE foreign { counter ; }; add rule inet TABLE filter-forward counter;
		delete element inet TABLE backends4 { 172.30.0.9 . tcp . 80 }; flush set inet TABLE hairpins4;
		add element inet TABLE pods4 { 203.0.113.0/24 }; add element inet TABLE cluster-ips4 { 203.0.113.1 }`
	if out, err := exec.CommandContext(ctx, "nft", strings.ReplaceAll(damage, "TABLE", p.table)).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for p.Stats().Repairs == before.Repairs {
		time.Sleep(time.Millisecond)
	}
	return nil
}

func runVictim(text string) error {
	var e errand
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return err
	}
	victim := &netlab.Victim{Left: 1 << 30}
	p, err := New(Config{Socket: func(kernel Socket) Socket { victim.Socket = kernel; return victim }})
	if err != nil {
		return err
	}
	k := killings[e.Name]
	return k.run(p, Changes{Complete: true, Put: append(steadyServices(), k.after(e.Steps)...), Node: node}, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		victim.Left = e.Steps
	})
}

// A process that is killed by SIGKILL at any step of any change: no packet to a Service that does not
// change is lost, meanwhile and when the next process starts, which makes everything as wanted, and
// nothing is left over.
func TestKilledAtAnyStep(t *testing.T) {
	for name, k := range killings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, _ := servers(t)
			n := l.Nodes[0]
			restart(t, n, none(0))
			var traffic *netlab.Traffic
			if !k.cold && name != "cleanup" {
				traffic = l.Client.StartTraffic(t, toSteady...)
			}
			steps := 0
			for killed := true; killed && !t.Failed(); steps++ {
				k.prepare(t, n, steps)
				killed = k.kill(t, n, errand{name, steps})
				restart(t, n, k.after(steps))
				works(t, l)
				if a, err := l.Client.AskPatiently(t, "tcp", ap("172.30.0.9:80")); err != nil {
					t.Errorf("the changed Service, after a kill at step %d: %v %v", steps, a, err)
				}
			}
			if traffic != nil {
				traffic.Stop()
				t.Logf("killed at each of %d steps, %d connections and packets meanwhile", steps-1, traffic.Asked())
			}
			if steps < 3 {
				t.Errorf("only %d steps", steps-1)
			}
			p := newPlane(t, n, Config{})
			if err := p.Cleanup(); err != nil {
				t.Error(err)
			}
			if got := foreign(t, n, "list", "ruleset"); strings.Contains(got, "portico") {
				t.Errorf("after Cleanup there is %s", got)
			}
		})
	}
}

// toSteady is where the Services of servers are.
var toSteady = []netlab.Destination{
	{Network: "udp", Addr: "172.30.0.1:80"},
	{Network: "udp", Addr: "192.168.0.10:30080"},
	{Network: "tcp", Addr: "172.30.0.1:80"},
	{Network: "tcp", Addr: "172.30.0.1:81"},
	{Network: "tcp", Addr: "[fd00:30::1]:80"},
}

func (k killing) prepare(t *testing.T, h *netlab.Host, step int) {
	t.Helper()
	if k.cold {
		foreign(t, h, "flush", "ruleset")
		return
	}
	table := restart(t, h, k.before(step))
	if k.damage != "" {
		foreign(t, h, strings.ReplaceAll(k.damage, "TABLE", table))
	}
}

// restart is a process that lives, and one after it that finds nothing to do.
func restart(t *testing.T, h *netlab.Host, changing []*Service) (table string) {
	t.Helper()
	all := Changes{Complete: true, Put: append(steadyServices(), changing...), Node: node}
	p := newPlane(t, h, Config{})
	apply(t, p, all)
	p.Close()
	next := newPlane(t, h, Config{Socket: func(kernel Socket) Socket { return netlab.Bystander{Socket: kernel} }})
	defer next.Close()
	if err := next.Apply(all); err != nil {
		t.Fatalf("the kernel is not as wanted: %v\n%s", err, foreign(t, h, "list", "ruleset"))
	}
	if got := strings.Count(foreign(t, h, "list", "tables"), "portico"); got != 1 {
		t.Fatalf("%d tables are left", got)
	}
	return next.table
}

// kill runs a process and tells whether it was killed; else it has done all there was to do.
func (k killing) kill(t *testing.T, h *netlab.Host, e errand) (killed bool) {
	t.Helper()
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimVar+"="+string(text))
	var out []byte
	h.Do(t, func() { out, err = cmd.CombinedOutput() })
	var exit *exec.ExitError
	if err == nil {
		return false
	}
	if !errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled() || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%+v: %v: %s", e, err, out)
	}
	return true
}

// A new table takes over from another one without the loss of a packet.
func TestAnotherTableTakesOver(t *testing.T) {
	l, all := servers(t)
	p := newPlane(t, l.Nodes[0], Config{})
	apply(t, p, Changes{Complete: true, Put: all, Node: node})
	traffic := l.Client.StartTraffic(t, toSteady...)
	for i := 0; i < 150 && !t.Failed(); i++ {
		foreign(t, l.Nodes[0], "add rule inet "+p.table+" filter-forward counter")
		if err := p.Repair(); err != nil {
			t.Fatal(err)
		}
	}
	traffic.Stop()
	if s := p.Stats(); s.Rebuilds < 100 || traffic.Asked() < 100 {
		t.Errorf("%+v, %d connections and packets", s, traffic.Asked())
	}
}
