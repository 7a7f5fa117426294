package services

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/e2e/cluster"
	"github.com/portico-ingress/portico/e2e/suite"
)

// exclude is the label of nodes that announce nothing.
const exclude = "node.kubernetes.io/exclude-from-external-load-balancers"

// A node is labelled, and the address that it announces moves to the other one: no new connection fails, and those that are
// open go on.
func TestPlannedMove(t *testing.T) {
	ns := newNamespace(t)
	startPods(t, ns)
	apply(t, ns, balanced("web", "", ""))
	at := vip(t, ns, "web") + ":80"
	answers(t, at)
	ip := strings.TrimSuffix(at, ":80")
	by, err := owners(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	from := by[ip]
	t.Cleanup(func() { label(t, from, `null`) })
	fresh, kept := probe(t, cluster.ClientHost, at), stay(t, 4, at)
	suite.Wait(t, 20*time.Second, "clients ask", func(context.Context) string { return fewer(kept(false), 40) })
	label(t, from, `""`)
	var to string
	took := suite.Wait(t, 20*time.Second, at+" moves", func(ctx context.Context) string {
		by, err := owners(ctx)
		if to = by[ip]; to == from || to == "" {
			return to + text(err)
		}
		return ""
	})
	moved := kept(false)
	suite.Wait(t, 20*time.Second, "clients ask on", func(context.Context) string { return fewer(kept(false)-moved, 100) })
	t.Logf("%s moved from %s to %s in %s; %d questions over 4 connections that stayed open, %d others", at, from, to, took.Round(time.Millisecond), kept(true), fresh())
	event(t, "Service", ns, "web", "Announced", to)
	if n := metric(t, to, "portico_svcproxy_handover_connections_total"); n == "0" {
		t.Error("no metric of the connections that stayed")
	}
}

func fewer(n, want int64) string {
	if n < want {
		return fmt.Sprintf("%d of %d", n, want)
	}
	return ""
}

// label sets the label exclude of a node; value is JSON.
func label(t *testing.T, node, value string) {
	t.Helper()
	body := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, exclude, value)
	if _, err := client.CoreV1().Nodes().Patch(context.Background(), node, types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}

// stay asks over n connections from the client host. None of them may end before it is told to stop, and then it is
// whoever made them that ends them. It says how many questions there were.
func stay(t *testing.T, n int, at string) (asked func(stop bool) int64) {
	t.Helper()
	var clients sync.WaitGroup
	var count atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	for range n {
		conn, err := up.Dial(t.Context(), cluster.ClientHost, "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			defer func() { _ = conn.Close() }()
			in := bufio.NewReader(conn)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				if err := askOver(conn, in); err != nil {
					t.Errorf("%s over a connection that was open: %v", at, err)
					return
				}
				count.Add(1)
				<-tick.C
			}
		})
	}
	asked = func(stop bool) int64 {
		if stop {
			cancel()
			clients.Wait()
		}
		return count.Load()
	}
	t.Cleanup(func() { asked(true) })
	return asked
}

func askOver(out io.Writer, in *bufio.Reader) error {
	if _, err := io.WriteString(out, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}
