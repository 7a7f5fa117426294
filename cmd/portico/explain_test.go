package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
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
		{"10.0.0.1 10.0.0.2:80/TCP --admin http://127.0.0.1:9" + with, "--admin and --manifests: the process that runs has its own"},
		{"default/a 10.0.0.2:80/TCP --admin http://127.0.0.1:9", "SRC and DST have to be addresses"},
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

// fakeAPI answers lists of the kinds that are read, and asks for nothing but lists.
func fakeAPI(t *testing.T, lists map[string]string) string {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		list, ok := lists[r.URL.Path]
		switch {
		case r.URL.Query().Get("sendInitialEvents") != "":
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		case !ok:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"no, you may not","code":403}`)
		case r.URL.Query().Get("watch") != "":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			fmt.Fprint(w, list)
		}
	}))
	t.Cleanup(api.Close)
	config := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u}]\ncurrent-context: c\n", api.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// From a cluster: the node is that of the Pod, and Pods are read for a Service without endpoints alone.
func TestExplainPacketInACluster(t *testing.T) {
	lists := map[string]string{
		"/api/v1/services": `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"web","namespace":"default"},
			"spec":{"clusterIP":"10.96.0.1","selector":{"app":"a"},"ports":[{"port":80,"protocol":"TCP"}]}}]}`,
		"/apis/discovery.k8s.io/v1/endpointslices": `{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`,
		"/api/v1/nodes": `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`,
	}
	pods := `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"b-0","namespace":"default","labels":{"app":"b"}},
		"spec":{"nodeName":"far-node"},"status":{"podIP":"10.1.0.9"}}]}`
	ask := func(src string) (int, string) {
		t.Helper()
		var out, stderr bytes.Buffer
		code := run(t.Context(), []string{"explain", "packet", src, "10.96.0.1:80/TCP", "--kubeconfig", fakeAPI(t, maps.Clone(lists))}, &out, &stderr)
		return code, out.String() + stderr.String()
	}
	code, text := ask("10.1.0.9")
	if code != exitFailure || !strings.Contains(text, "the Pods of namespace default cannot be read: no, you may not") {
		t.Errorf("%d %s", code, text)
	}
	lists["/api/v1/namespaces/default/pods"] = pods
	code, text = ask("default/b-0")
	for _, want := range []string{"on node far-node: REJECTED", "selector app=a matches no Pod; the nearest label is app=b on 1 Pod", "this is another host"} {
		if code != exitFailure || !strings.Contains(text, want) {
			t.Errorf("%d %s, want %s", code, text, want)
		}
	}
}
