package services

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

// A node that announces an address loses its power. It is the last test: the node comes back, but
// its Pods take their time.
func TestNodeDies(t *testing.T) {
	ns := newNamespace(t)
	startPods(t, ns)
	// Services whose only endpoint is on node2; about half of them are announced by node1.
	var lost string
	for i := range 12 {
		name := fmt.Sprintf("web%d", i)
		apply(t, ns, strings.Replace(balanced(name, "", ""), "{app: web}", "{at: node2}", 1))
		ip := vip(t, ns, name)
		answers(t, ip+":80")
		by, err := owners(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if by[ip] == "node1" {
			lost = ip
			break
		}
	}
	if lost == "" {
		t.Fatal("node1 announces nothing")
	}
	if err := up.KillNode(t.Context(), "node1"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	c := httpFrom(cluster.ClientHost, 200*time.Millisecond, false)
	suite.Wait(t, 30*time.Second, lost+" answers again", func(ctx context.Context) string {
		_, err := ask(ctx, c, lost+":80")
		return text(err)
	})
	t.Logf("node killed -> the client's next answer: %s", time.Since(start).Round(time.Millisecond))
	if err := up.StartNode(t.Context(), "node1"); err != nil {
		t.Fatal(err)
	}
	suite.Wait(t, 2*time.Minute, "svcproxy of node1 is ready again", func(ctx context.Context) string {
		out, err := up.Kubectl(ctx, "get", "daemonset", "portico-svcproxy", "-n", own, "-o", "jsonpath={.status.numberReady}")
		if out != "2" {
			return out + text(err)
		}
		return ""
	})
}
