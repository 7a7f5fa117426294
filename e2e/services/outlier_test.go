package services

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

// A Pod listens no more, and is ready all the same: soon nobody is sent there, and svcproxy says so wherever somebody may
// look. When it listens again, it is used again.
func TestPodListensNoMore(t *testing.T) {
	ns := newNamespace(t)
	const control = "8082"
	pod := func(name, node string) string {
		return strings.Replace(echoPod(name, node, `, {name: PORTS, value: "8080,`+control+`"}`), "path: /ready, port: 8080", "path: /ready, port: "+control, 1)
	}
	apply(t, ns, pod("one", "node1")+pod("two", "node2"))
	ready(t, ns, "one", "two")
	apply(t, ns, nodePortService)
	s := service(t, ns, "web")
	at := net.JoinHostPort(up.NodeIP("node1").String(), fmt.Sprint(s.Spec.Ports[0].NodePort))
	answers(t, at)
	c := httpFrom(cluster.ClientHost, 5*time.Second, false)
	waitForPod := func(name string) {
		suite.Wait(t, time.Minute, name+" answers", func(ctx context.Context) string {
			a, err := ask(ctx, c, at)
			if err != nil || a.Pod != name {
				return a.Pod + text(err)
			}
			return ""
		})
	}
	waitForPod("two")

	listen(t, net.JoinHostPort(podIP(t, ns, "two"), control), "false")
	failed, answered := 0, 0
	suite.Wait(t, time.Minute, "nobody is sent to the Pod", func(ctx context.Context) string {
		for range 10 {
			if _, err := ask(ctx, c, at); err != nil {
				failed, answered = failed+1, 0
				return err.Error()
			}
			answered++
		}
		return fewer(int64(answered), 60)
	})
	t.Logf("%d connections of clients failed before the Pod was skipped", failed)
	// Three are looked at; those on their way meanwhile fail as well.
	if failed < 3 || failed > 40 {
		t.Errorf("%d failed", failed)
	}
	endpoint := net.JoinHostPort(podIP(t, ns, "two"), "8080")
	event(t, "Service", ns, "web", "EndpointSkipped", endpoint)
	if n := metric(t, "node1", "portico_svcproxy_outliers"); n == "0" {
		t.Error("no metric of it")
	}
	failures := fmt.Sprintf(`portico_svcproxy_endpoint_failures_total{endpoint=%q,namespace=%q,port="http",protocol="TCP",reason="refused",service="web"}`, endpoint, ns)
	if n := metric(t, "node1", failures); n == "0" {
		t.Error("the endpoint has no failures")
	}
	said := admin(t, "node1", "/api/v1/explain?"+url.Values{"from": {up.ClientIP().String()}, "to": {at}, "protocol": {"TCP"}}.Encode())
	if !strings.Contains(said, "skipped: refused") {
		t.Errorf("explain says %s", said)
	}

	listen(t, net.JoinHostPort(podIP(t, ns, "two"), control), "true")
	waitForPod("two")
	event(t, "Service", ns, "web", "EndpointReturned", endpoint)
}

// listen has echo listen on 8080, or not.
func listen(t *testing.T, control, state string) {
	t.Helper()
	res, err := httpFrom("node1", 5*time.Second, false).Post("http://"+control+"/listen?port=8080&state="+state, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", res.Status, body)
	}
}
