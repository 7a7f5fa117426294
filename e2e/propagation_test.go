package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	rounds = 50
	// slowest is what the slowest of a hundred changes may take.
	slowest = time.Second
)

// asker asks again and again on one connection: each question costs well under a
// millisecond.
type asker struct {
	conn net.Conn
	br   *bufio.Reader
	host string
}

func (e *edge) newAsker(t *testing.T, host string) *asker {
	t.Helper()
	conn, err := up.DialClient(t.Context(), "tcp", netJoin(e.next(), e.http))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &asker{conn, bufio.NewReader(conn), host}
}

// ask is the backend that answered, or the status.
func (a *asker) ask(path string) (string, error) {
	_ = a.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprintf(a.conn, "HEAD %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, a.host); err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodHead, "http://"+a.host+path, nil)
	if err != nil {
		return "", err
	}
	res, err := http.ReadResponse(a.br, req)
	if err != nil {
		return "", err
	}
	_ = res.Body.Close()
	return answer{status: res.StatusCode, head: res.Header}.by(), nil
}

// until asks until the answer is that one, and returns how long ago since was.
func (a *asker) until(t *testing.T, path, want string, since time.Time) time.Duration {
	t.Helper()
	for {
		got, err := a.ask(path)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(since)
		if got == want {
			return took
		}
		if took > 15*time.Second {
			t.Fatalf("%s of %s is answered by %s, want %s", path, a.host, got, want)
		}
	}
}

// times are how long the rounds took, from before the request to the API server
// and from its answer.
type times struct{ all, after []time.Duration }

func (ts *times) add(all, api time.Duration) {
	ts.all = append(ts.all, all)
	ts.after = append(ts.after, max(0, all-api))
}

func (ts *times) judge(t *testing.T, what string) {
	t.Helper()
	slices.Sort(ts.all)
	slices.Sort(ts.after)
	at := func(l []time.Duration, percent int) time.Duration { return l[min(len(l)-1, len(l)*percent/100)] }
	us := 10 * time.Microsecond
	t.Logf("%s, %d rounds: from the request to the API server to the first routed request p50 %s p99 %s; of that after the API server's answer p50 %s p99 %s",
		what, len(ts.all), at(ts.all, 50).Round(us), at(ts.all, 99).Round(us), at(ts.after, 50).Round(us), at(ts.after, 99).Round(us))
	if p99 := at(ts.all, 99); p99 >= slowest {
		t.Errorf("%s: p99 is %s, want less than %s", what, p99, slowest)
	}
}

// Alone, because it is about time.
func TestChangesAreRoutedAtOnce(t *testing.T) {
	e := portico(t)
	e.settled(t)
	ns := newNamespace(t)
	ips := paint(t)
	paintServices(t, ns)
	createService(t, ns, "moving", corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}})
	createSlice(t, ns, "moving", "moving", 8080, endpoint{ip: ips["blue"]})
	host := ns + ".test"
	createIngress(t, ns, newIngress("moving",
		rule{host: host, path: "/ingress", backend: "blue"},
		rule{host: host, path: "/slice", backend: "moving"},
	))
	e.waitAnsweredBy(t, "blue", "http://"+host+"/ingress")
	e.waitAnsweredBy(t, "blue", "http://"+host+"/slice")
	a := e.newAsker(t, host)

	t.Run("a path of an Ingress", func(t *testing.T) {
		var ts times
		for i := range rounds {
			to := colours[(i+1)%2]
			patch := fmt.Sprintf(`[{"op":"replace","path":"/spec/rules/0/http/paths/0/backend/service/name","value":%q}]`, to)
			start := time.Now()
			if _, err := client.NetworkingV1().Ingresses(ns).Patch(t.Context(), "moving", types.JSONPatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			api := time.Since(start)
			ts.add(a.until(t, "/ingress", to, start), api)
		}
		ts.judge(t, "Ingress path")
	})
	t.Run("a new path of an Ingress", func(t *testing.T) {
		var ts times
		for i := range rounds {
			path := fmt.Sprintf("/new-%d", i)
			patch := fmt.Sprintf(`[{"op":"add","path":"/spec/rules/0/http/paths/-","value":{"path":%q,"pathType":"Prefix","backend":{"service":{"name":"red","port":{"number":80}}}}}]`, path)
			start := time.Now()
			if _, err := client.NetworkingV1().Ingresses(ns).Patch(t.Context(), "moving", types.JSONPatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			api := time.Since(start)
			ts.add(a.until(t, path, "red", start), api)
		}
		ts.judge(t, "new Ingress path")
	})
	t.Run("an EndpointSlice", func(t *testing.T) {
		var ts times
		for i := range rounds {
			to := colours[(i+1)%2]
			patch := fmt.Sprintf(`[{"op":"replace","path":"/endpoints/0/addresses/0","value":%q}]`, ips[to])
			start := time.Now()
			if _, err := client.DiscoveryV1().EndpointSlices(ns).Patch(t.Context(), "moving", types.JSONPatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			api := time.Since(start)
			ts.add(a.until(t, "/slice", to, start), api)
		}
		ts.judge(t, "EndpointSlice")
	})
	t.Run("kubectl patch", func(t *testing.T) {
		var all []time.Duration
		for i := range 5 {
			to := colours[(i+1)%2]
			start := time.Now()
			kubectl(t, "patch", "ingress", "moving", "-n", ns, "--type=json",
				"-p", fmt.Sprintf(`[{"op":"replace","path":"/spec/rules/0/http/paths/0/backend/service/name","value":%q}]`, to))
			ended := time.Since(start)
			all = append(all, max(0, a.until(t, "/ingress", to, start)-ended))
		}
		t.Logf("5 times kubectl patch: routed after its end by %v", all)
	})
}
