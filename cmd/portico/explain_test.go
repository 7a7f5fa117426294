package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/portico-ingress/portico/svcproxy"
	"github.com/portico-ingress/portico/svcproxy/netlab"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

var updateExplain = flag.Bool("update", false, "write what the cases of testdata/explain give into them")

// Each file of testdata/explain is a case: arguments of explain packet, a folder of YAML, and what it
// says. The node is node0; other ways to be there are a matter of svcproxy's tests with packets.
func TestExplainPacket(t *testing.T) {
	t.Setenv("NODE_NAME", "elsewhere")
	files, err := filepath.Glob("testdata/explain/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var args string
			var output *txtar.File
			dir := t.TempDir()
			for i := range archive.Files {
				switch f := &archive.Files[i]; f.Name {
				case "args":
					args = string(f.Data)
				case "output":
					output = f
				default:
					if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			got := explainAll(t, dir, args)
			if *updateExplain {
				output.Data = got
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(output.Data), string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// explainAll runs one command a line.
func explainAll(t *testing.T, dir, lines string) []byte {
	t.Helper()
	var all bytes.Buffer
	for line := range strings.Lines(lines) {
		var stderr bytes.Buffer
		fmt.Fprintf(&all, "$ %s\n", strings.TrimSpace(line))
		args := append([]string{"explain", "packet", "--manifests", dir, "--node-name", "node0"}, strings.Fields(line)...)
		code := run(t.Context(), args, &all, &stderr)
		fmt.Fprintf(&all, "exit code %d\n", code)
		if stderr.Len() > 0 {
			t.Errorf("%s: %s", line, stderr.String())
		}
	}
	return all.Bytes()
}

// What cannot be understood is said to be so, with what to write instead.
func TestExplainPacketRefuses(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	dir := t.TempDir()
	objects := `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: name}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: v1
kind: Pod
metadata: {name: new}
spec: {containers: [{name: c, image: i}]}
`
	if err := os.WriteFile(filepath.Join(dir, "objects.yaml"), []byte(objects), 0o600); err != nil {
		t.Fatal(err)
	}
	with := " --manifests " + dir
	for _, c := range []struct{ args, want string }{
		{"", "takes two arguments, SRC and DST:PORT/PROTO, and got 0"},
		{"10.0.0.1 10.0.0.2:80/TCP extra", "got 3"},
		{"10.0.0.1:5 10.0.0.2:80/TCP", `SRC "10.0.0.1:5": the source is an address without a port; write 10.0.0.1`},
		{"client 10.0.0.2:80/TCP", `SRC "client": want an IP address or namespace/name`},
		{"Default/a 10.0.0.2:80/TCP", `SRC "Default/a": want namespace/name`},
		{"fe80::1%eth0 [fd00::2]:80/TCP", "leave it out"},
		{"::ffff:10.0.0.1 10.0.0.2:80/TCP", "write 10.0.0.1"},
		{"10.0.0.1 10.0.0.2:80", "no protocol; write 10.0.0.2:80/TCP, /UDP or /SCTP"},
		{"10.0.0.1 default/web:80", "no protocol; write default/web:80/TCP, /UDP or /SCTP"},
		{"10.0.0.1 10.0.0.2:80/HTTP", `protocol "HTTP": want TCP, UDP or SCTP`},
		{"10.0.0.1 10.0.0.2:80/icmp", "ICMP has no ports"},
		{"10.0.0.1 10.0.0.2/TCP", "no port; write 10.0.0.2:80/TCP"},
		{"fd00::1 fd00::2:80/TCP", "an IPv6 address stands in brackets; write [fd00::2:80]:80/TCP"},
		{"fd00::1 [fd00::2:80/TCP", "the bracket is not closed"},
		{"10.0.0.1 [10.0.0.2]:80/TCP", "brackets are for IPv6 addresses"},
		{"10.0.0.1 10.0.0.2:0/TCP", `port "0": want a number from 1 to 65535`},
		{"10.0.0.1 10.0.0.2:65536/TCP", `port "65536": want a number`},
		{"10.0.0.1 10.0.0.2:http/TCP", `port "http": want a number`},
		{"10.0.0.1 web.default.svc:80/TCP", "want an IP address or namespace/name"},
		{"10.0.0.1 default/web:HTTP_/TCP", "or the name of a port of the Service"},
		{"10.0.0.1 [fd00::2]:80/TCP", "are of different IP families"},
		{"10.0.0.1 10.0.0.2:80/TCP", "give --kubeconfig FILE or --manifests DIR"},
		{"10.0.0.1 10.0.0.2:80/TCP --kubeconfig x" + with, "give one of them"},
		{"10.0.0.1 10.0.0.2:80/TCP -o yaml" + with, "want one of text, json"},
		{"10.0.0.1 default/none:80/TCP" + with, "there is no Service default/none"},
		{"default/none 10.0.0.2:80/TCP" + with, "there is no Pod default/none"},
		{"default/new 10.0.0.2:80/TCP" + with, "Pod default/new has no address yet"},
		{"10.0.0.1 default/web:https/TCP" + with, `has no port "https", protocol TCP; it has "http" 80/TCP`},
		{"fd00::1 default/web:80/TCP" + with, "has no cluster IP of the IP family of the source"},
		{"10.0.0.1 default/headless:80/TCP" + with, "is headless"},
		{"10.0.0.1 default/name:80/TCP" + with, "is of type ExternalName"},
	} {
		code, stdout, stderr := command(t, append([]string{"explain", "packet"}, strings.Fields(c.args)...)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: %d %s, want %s", c.args, code, stderr, c.want)
		}
	}
}

// On the node itself the kernel is asked, and what it says counts for the exit code.
func TestExplainPacketAsksTheKernel(t *testing.T) {
	t.Setenv("NODE_NAME", "node0")
	dir := t.TempDir()
	objects := `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints: [{addresses: [10.1.0.5]}]
`
	if err := os.WriteFile(filepath.Join(dir, "objects.yaml"), []byte(objects), 0o600); err != nil {
		t.Fatal(err)
	}
	h := netlab.NewHost(t)
	ask := func() (code int, e svcproxy.Explanation) {
		t.Helper()
		var out, stderr bytes.Buffer
		h.Do(t, func() {
			code = run(t.Context(), []string{"explain", "packet", "10.1.0.9", "10.96.0.1:80/TCP", "--manifests", dir, "-o", "json"}, &out, &stderr)
		})
		if err := json.Unmarshal(out.Bytes(), &e); err != nil || stderr.Len() > 0 {
			t.Fatalf("%v %s %s", err, out.String(), stderr.String())
		}
		return code, e
	}
	code, e := ask()
	if code != exitFailure || e.Verdict != svcproxy.Delivered || !e.Kernel.Compared || e.Kernel.Agrees {
		t.Errorf("before anything is programmed: %d %+v", code, e)
	}
	var plane *nft.Plane
	var err error
	h.Do(t, func() { plane, err = nft.New(nft.Config{}) })
	if err != nil {
		t.Fatal(err)
	}
	defer plane.Close()
	vip := netip.MustParseAddr("10.96.0.1")
	err = plane.Apply(nft.Changes{Complete: true, Put: []*nft.Service{{
		Name: "web", Protocol: 6, Frontends: []nft.Frontend{{Addr: vip, Port: 80, Kind: nft.ClusterIP}},
		Cluster: []netip.AddrPort{netip.MustParseAddrPort("10.1.0.5:8080")}, ClusterIPs: []netip.Addr{vip},
	}}, Node: &nft.Node{Unmasqueraded: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}})
	if err != nil {
		t.Fatal(err)
	}
	code, e = ask()
	if code != exitOK || !e.Kernel.Agrees || len(e.Kernel.Elements) != 2 {
		t.Errorf("programmed: %d %+v", code, e)
	}
}
