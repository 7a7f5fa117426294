package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/svcproxy/netlab"
)

// killedService is a Service of TCP and one of UDP, on an address, with these Pods of node 0.
func killedService(name, address string, affinity bool, pods ...int) string {
	var b strings.Builder
	for _, protocol := range []string{"TCP", "UDP"} {
		name := name + "-" + strings.ToLower(protocol)
		fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: %s, namespace: default}\nspec:\n  clusterIP: %s\n  ports: [{port: 80, protocol: %s}]\n", name, address, protocol)
		if affinity {
			b.WriteString("  sessionAffinity: ClientIP\n")
		}
		fmt.Fprintf(&b, "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: %s, namespace: default, labels: {kubernetes.io/service-name: %s}}\n", name, name)
		fmt.Fprintf(&b, "addressType: IPv4\nports: [{name: \"\", port: 8080, protocol: %s}]\nendpoints:\n", protocol)
		for _, p := range pods {
			fmt.Fprintf(&b, "- {addresses: [10.180.0.%d], nodeName: node0}\n", 10+p)
		}
		b.WriteString("---\n")
	}
	return b.String()
}

// mortal is portico svcproxy with a folder that changes.
type mortal struct {
	lab            *netlab.Lab
	binary, folder string
	// pods of the Services that change; nil: there is none.
	pods [8][]int
}

func (m *mortal) start(t *testing.T, h *netlab.Host) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(m.binary, "svcproxy", "--mode", "nftables", "--admin", "", "--endpoint-hold", "0", "--manifests", m.folder)
	cmd.Env = append(os.Environ(), "NODE_NAME=node0")
	var err error
	h.Do(t, func() { err = cmd.Start() })
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

// write puts a file in place all at once.
func (m *mortal) write(t *testing.T, name, text string) {
	t.Helper()
	beside := filepath.Join(filepath.Dir(m.folder), name)
	if err := errors.Join(os.WriteFile(beside, []byte(text), 0o600), os.Rename(beside, filepath.Join(m.folder, name))); err != nil {
		t.Fatal(err)
	}
}

// change makes, changes or deletes a Service.
func (m *mortal) change(t *testing.T) {
	t.Helper()
	i := rand.IntN(len(m.pods))
	name := fmt.Sprintf("changing-%d.yaml", i)
	was := m.pods[i]
	m.pods[i] = nil
	if was != nil && rand.IntN(3) == 0 {
		if err := os.Remove(filepath.Join(m.folder, name)); err != nil {
			t.Fatal(err)
		}
		return
	}
	for p := range 4 {
		if rand.IntN(2) == 0 || p == 3 && m.pods[i] == nil {
			m.pods[i] = append(m.pods[i], p)
		}
	}
	m.write(t, name, killedService(fmt.Sprint("changing-", i), m.address(i).String(), rand.IntN(2) == 0, m.pods[i]...))
}

func (m *mortal) address(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 30, 1, byte(i)}) }

// arrives waits until all Services that change are served as the folder says.
func (m *mortal) arrives(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for i, pods := range m.pods {
		for {
			a, err := m.lab.Client.Ask(t, "tcp", netip.AddrPortFrom(m.address(i), 80))
			right := err != nil && pods == nil
			for _, p := range pods {
				right = right || a.Server == fmt.Sprint("pod0-", p)
			}
			if right {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v is %v %v, and should be of %v", m.address(i), a, err, pods)
			}
		}
	}
}

// elements are how many each set of the live table has, without those that packets make and those of
// shapes, which stay.
func elements(t *testing.T, h *netlab.Host) map[string]int {
	t.Helper()
	var out []byte
	var err error
	h.Do(t, func() { out, err = exec.Command("nft", "-j", "list", "ruleset").Output() })
	if err != nil {
		t.Fatal(err)
	}
	type named struct {
		Table, Name string
		Elem        []json.RawMessage
	}
	var list struct {
		Nftables []struct{ Table, Set, Map *named }
	}
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for _, o := range list.Nftables {
		if o.Table != nil && (o.Table.Name == "portico-a" || o.Table.Name == "portico-b") {
			all["tables"]++
		}
		for _, s := range []*named{o.Set, o.Map} {
			if s != nil && !strings.HasPrefix(s.Name, "pick-") && !strings.HasPrefix(s.Name, "affinities") {
				all[s.Name] += len(s.Elem)
			}
		}
	}
	return all
}

// portico svcproxy is killed by SIGKILL at any moment, again and again, while Services come, change
// and go: no packet to another Service is lost, and in the end the kernel has what it has where the
// program was started once.
func TestSvcproxyKilledAgainAndAgain(t *testing.T) {
	dir := t.TempDir()
	m := &mortal{lab: netlab.New(t, 4), binary: filepath.Join(dir, "portico"), folder: filepath.Join(dir, "objects")}
	for _, p := range m.lab.Pods[0] {
		p.Serve(t, 8080)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", m.binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Mkdir(m.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	m.write(t, "steady.yaml", killedService("steady", "172.30.0.1", false, 0, 1))
	m.write(t, "affine.yaml", killedService("affine", "172.30.0.2", true, 2, 3))
	node := m.lab.Nodes[0]
	cmd := m.start(t, node)
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for _, to := range []string{"172.30.0.1:80", "172.30.0.2:80"} {
		for deadline := time.Now().Add(60 * time.Second); ; {
			if _, err := m.lab.Client.Ask(t, "udp", netip.MustParseAddrPort(to)); err == nil {
				break
			} else if time.Now().After(deadline) {
				t.Fatal(to, err)
			}
		}
	}
	traffic := m.lab.Client.StartTraffic(t, netlab.Destination{Network: "udp", Addr: "172.30.0.1:80"}, netlab.Destination{Network: "tcp", Addr: "172.30.0.1:80"},
		netlab.Destination{Network: "udp", Addr: "172.30.0.2:80"}, netlab.Destination{Network: "tcp", Addr: "172.30.0.2:80"})
	const kills = 25
	for range kills {
		for end := time.Now().Add(time.Duration(rand.IntN(400)) * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			m.change(t)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		cmd = m.start(t, node)
	}
	m.arrives(t)
	traffic.Stop()
	t.Logf("%d kills, %d connections and packets", kills, traffic.Asked())
	once := netlab.NewHost(t)
	other := m.start(t, once)
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	for deadline := time.Now().Add(60 * time.Second); ; {
		got, want := elements(t, node), elements(t, once)
		if maps.Equal(got, want) && got["tables"] == 1 {
			return
		}
		if time.Now().After(deadline) {
			var b bytes.Buffer
			for _, name := range slices.Sorted(maps.Keys(want)) {
				fmt.Fprintf(&b, "%s: %d, want %d\n", name, got[name], want[name])
			}
			t.Fatal(b.String())
		}
	}
}
