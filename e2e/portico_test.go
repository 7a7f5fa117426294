package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/suite"
)

// Where Portico is installed, and what from.
const (
	porticoNamespace = "portico"
	porticoSelector  = "app.kubernetes.io/name=portico"
	porticoClass     = "portico"
	controllerName   = "portico.dev/ingress"

	repository     = ".."
	porticoArchive = repository + "/bin/portico.tar"
	porticoBinary  = repository + "/bin/portico"
	installFolder  = "testdata/install"

	// imageAnnotation on Portico's namespace says which image runs in it.
	imageAnnotation = "e2e.portico.dev/image"
)

// edge is Portico as it is installed in the cluster.
type edge struct {
	http, https int // node ports
	dns         *nameServer
	replicas    atomic.Pointer[[]replica]
	turn        atomic.Uint32
}

// replica is one ready Pod of Portico.
type replica struct{ pod, node, ip string }

var installed = struct {
	sync.Once
	edge edge
	err  error
}{}

// portico is Portico in the cluster, which the first test to ask installs. When
// the test fails its log is shown.
func portico(t *testing.T) *edge {
	t.Helper()
	installed.Do(func() {
		start := time.Now()
		installed.err = installed.edge.install(context.Background())
		t.Logf("Portico installed after %s", time.Since(start).Round(time.Millisecond))
	})
	if installed.err != nil {
		t.Fatal("install Portico: ", installed.err)
	}
	e := &installed.edge
	e.refresh(t)
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t)
		}
	})
	return e
}

func (e *edge) install(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := haveImage(ctx); err != nil {
		return err
	}
	sum, err := hashFile(porticoArchive)
	if err != nil {
		return err
	}
	if err := removeOther(ctx, sum); err != nil {
		return err
	}
	if err := up.LoadImage(ctx, porticoArchive); err != nil {
		return err
	}
	if e.dns, err = serveNames(); err != nil {
		return err
	}
	if _, err := up.Kubectl(ctx, "apply", "-k", installFolder); err != nil {
		return err
	}
	if _, err := up.Kubectl(ctx, "annotate", "--overwrite", "namespace", porticoNamespace, imageAnnotation+"="+sum); err != nil {
		return err
	}
	if _, err := up.Kubectl(ctx, "rollout", "status", "deployment/portico", "-n", porticoNamespace, "--timeout=90s"); err != nil {
		return err
	}
	svc, err := client.CoreV1().Services(porticoNamespace).Get(ctx, "portico", metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, p := range svc.Spec.Ports {
		switch p.Name {
		case "http":
			e.http = int(p.NodePort)
		case "https":
			e.https = int(p.NodePort)
		}
	}
	if e.http == 0 || e.https == 0 {
		return fmt.Errorf("Service portico has no node ports: %+v", svc.Spec.Ports)
	}
	return nil
}

// haveImage makes the image unless `make image` has done it already.
func haveImage(ctx context.Context) error {
	for _, file := range []string{porticoArchive, porticoBinary} {
		_, err := os.Stat(file)
		if err == nil {
			continue
		}
		cmd := exec.CommandContext(ctx, "make", "-C", repository, "image")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make image: %w\n%s", err, out)
		}
	}
	return nil
}

func hashFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// removeOther ends a Portico of another image, which an earlier run left in a
// cluster that stayed up, and forgets its addresses.
func removeOther(ctx context.Context, sum string) error {
	ns, err := client.CoreV1().Namespaces().Get(ctx, porticoNamespace, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || ns.Annotations[imageAnnotation] == sum {
		return err
	}
	_, err = up.Kubectl(ctx, "delete", "deployments,daemonsets,services,leases", "--all", "-n", porticoNamespace, "--ignore-not-found")
	if err != nil {
		return err
	}
	_, err = up.Kubectl(ctx, "delete", "pods", "--all", "-n", porticoNamespace, "--grace-period=1", "--timeout=60s")
	return err
}

// refresh finds out where Portico runs now.
func (e *edge) refresh(t *testing.T) []replica {
	t.Helper()
	found, err := porticoReplicas(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("no replica of Portico is ready")
	}
	e.replicas.Store(&found)
	return found
}

// settled waits until Portico is what it was installed as: two ready replicas,
// one on each node, and none that is on its way out.
func (e *edge) settled(t *testing.T) []replica {
	t.Helper()
	suite.Wait(t, 2*time.Minute, "two replicas of Portico", func(ctx context.Context) string {
		pods, err := porticoPods(ctx)
		if err != nil {
			return err.Error()
		}
		nodes := map[string]bool{}
		for i := range pods {
			if podReady(&pods[i]) {
				nodes[pods[i].Spec.NodeName] = true
			}
		}
		if len(pods) != 2 || len(nodes) != 2 {
			return fmt.Sprintf("%d Pods, ready on %v", len(pods), nodes)
		}
		return ""
	})
	return e.refresh(t)
}

func porticoPods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := client.CoreV1().Pods(porticoNamespace).List(ctx, metav1.ListOptions{LabelSelector: porticoSelector})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

func porticoReplicas(ctx context.Context) ([]replica, error) {
	pods, err := porticoPods(ctx)
	if err != nil {
		return nil, err
	}
	var found []replica
	for i := range pods {
		if p := &pods[i]; p.DeletionTimestamp == nil && podReady(p) {
			found = append(found, replica{p.Name, p.Spec.NodeName, p.Status.PodIP})
		}
	}
	slices.SortFunc(found, func(a, b replica) int { return strings.Compare(a.node+a.pod, b.node+b.pod) })
	return found, nil
}

func podReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// all are the replicas, as of the last refresh.
func (e *edge) all() []replica { return *e.replicas.Load() }

// next is the address of a node that has a replica, of another one each time.
func (e *edge) next() string {
	all := e.all()
	return up.NodeIP(all[int(e.turn.Add(1))%len(all)].node).String()
}

// port is the node port of a scheme.
func (e *edge) port(scheme string) int {
	if scheme == "https" {
		return e.https
	}
	return e.http
}

// admin asks the admin address of a replica.
func (r replica) admin(ctx context.Context, path string) (status int, body []byte, err error) {
	hc := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return up.Dial(ctx, r.node, network, address)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(r.ip, "10254")+path, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := hc.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// adminJSON decodes what the admin address says.
func (r replica) adminJSON(ctx context.Context, path string, into any) error {
	status, body, err := r.admin(ctx, path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", status, body)
	}
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		return fmt.Errorf("%s of %s: %w", path, r.pod, err)
	}
	return nil
}

// What the admin API says, as far as tests look at it.
type (
	routeView struct {
		Path     string   `json:"path"`
		PathType string   `json:"pathType"`
		Ingress  string   `json:"ingress"`
		Service  string   `json:"service"`
		Backend  string   `json:"backend"`
		Status   int      `json:"status"`
		Reason   string   `json:"reason"`
		Filters  []string `json:"filters"`
	}
	hostView struct {
		Host     string      `json:"host"`
		Routes   []routeView `json:"routes"`
		Fallback *routeView  `json:"fallback"`
	}
	tableView struct {
		Generation uint64     `json:"generation"`
		Hosts      []hostView `json:"hosts"`
		Fallback   *routeView `json:"fallback"`
	}
	endpointView struct {
		Address string `json:"address"`
		Pod     string `json:"pod"`
	}
	backendView struct {
		Name      string         `json:"name"`
		Endpoints []endpointView `json:"endpoints"`
	}
	backendsView struct {
		Backends []backendView `json:"backends"`
	}
	problemView struct {
		Object struct{ Kind, Namespace, Name string } `json:"object"`
		Field  string                                 `json:"field"`
		Text   string                                 `json:"text"`
	}
	problemsView struct {
		Problems []problemView `json:"problems"`
	}
	certificateView struct {
		Name     string    `json:"name"`
		Hosts    []string  `json:"hosts"`
		Default  bool      `json:"default"`
		KeyType  string    `json:"keyType"`
		NotAfter time.Time `json:"notAfter"`
	}
	certificatesView struct {
		Certificates []certificateView `json:"certificates"`
	}
)

func (r replica) table(ctx context.Context) (v tableView, err error) {
	return v, r.adminJSON(ctx, "/api/v1/routes", &v)
}

func (r replica) problems(ctx context.Context) (v problemsView, err error) {
	return v, r.adminJSON(ctx, "/api/v1/problems", &v)
}

// waitProblem waits until every replica has a Problem of an object that contains
// the text.
func (e *edge) waitProblem(t *testing.T, kind, namespace, name, text string) {
	t.Helper()
	waitFor(t, 15*time.Second, fmt.Sprintf("Problem of %s %s %q", kind, name, text), func(ctx context.Context) string {
		for _, r := range e.all() {
			v, err := r.problems(ctx)
			if err != nil {
				return err.Error()
			}
			if !slices.ContainsFunc(v.Problems, func(p problemView) bool {
				o := p.Object
				return o.Kind == kind && o.Namespace == namespace && o.Name == name && strings.Contains(p.Text, text)
			}) {
				return fmt.Sprintf("%s says %+v", r.pod, v.Problems)
			}
		}
		return ""
	})
}

// waitNoProblem waits until no replica has a Problem of an object.
func (e *edge) waitNoProblem(t *testing.T, kind, namespace, name string) {
	t.Helper()
	waitFor(t, 15*time.Second, fmt.Sprintf("no Problem of %s %s", kind, name), func(ctx context.Context) string {
		for _, r := range e.all() {
			v, err := r.problems(ctx)
			if err != nil {
				return err.Error()
			}
			for _, p := range v.Problems {
				if p.Object.Kind == kind && p.Object.Namespace == namespace && p.Object.Name == name {
					return fmt.Sprintf("%s says %+v", r.pod, p)
				}
			}
		}
		return ""
	})
}

// waitEvent waits for an Event on an object, and checks who it is from.
func waitEvent(t *testing.T, kind, namespace, name, reason string) {
	t.Helper()
	waitFor(t, 15*time.Second, fmt.Sprintf("Event %s on %s %s", reason, kind, name), func(ctx context.Context) string {
		list, err := client.EventsV1().Events(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err.Error()
		}
		var seen []string
		for _, ev := range list.Items {
			if ev.Regarding.Kind == kind && ev.Regarding.Name == name {
				if ev.Reason == reason && ev.Type == corev1.EventTypeWarning && ev.ReportingController == controllerName {
					return ""
				}
				seen = append(seen, ev.Reason+" by "+ev.ReportingController)
			}
		}
		return fmt.Sprintf("it has %v", seen)
	})
}

// showLogs shows the end of what the replicas have to say, and of what they
// answered.
func showLogs(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	pods, err := porticoPods(ctx)
	if err != nil {
		t.Logf("no log of Portico: %v", err)
	}
	for i := range pods {
		out, err := up.Kubectl(ctx, "logs", "-n", porticoNamespace, pods[i].Name, "--tail=2000")
		if err != nil {
			t.Logf("no log of Portico: %v", err)
		}
		var said, answered []string
		for line := range strings.Lines(out) {
			if strings.Contains(line, `"level":`) || !strings.HasPrefix(line, "{") {
				said = append(said, line)
			} else if !strings.Contains(line, "portico-e2e-load") {
				answered = append(answered, line)
			}
		}
		t.Logf("log of %s on %s:\n%s... and answered:\n%s", pods[i].Name, pods[i].Spec.NodeName,
			strings.Join(said[max(0, len(said)-25):], ""), strings.Join(answered[max(0, len(answered)-10):], ""))
	}
}

// local is a Portico that runs on the machine, outside of the cluster.
type local struct {
	cmd                *exec.Cmd
	http, https, admin string
	log                *tail
}

// tail keeps what a program wrote.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startLocal starts bin/portico on free ports of the machine's loopback and ends
// it with the test.
func startLocal(t *testing.T, args ...string) *local {
	t.Helper()
	l := &local{log: &tail{}, http: freePort(t), https: freePort(t), admin: freePort(t)}
	l.cmd = exec.CommandContext(t.Context(), porticoBinary, append([]string{
		"serve", "--http", l.http, "--https", l.https, "--admin", l.admin,
	}, args...)...)
	l.start(t)
	return l
}

func (l *local) start(t *testing.T) {
	t.Helper()
	l.cmd.Stdout, l.cmd.Stderr = io.Discard, l.log
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.cmd.Process.Kill()
		_ = l.cmd.Wait()
		if t.Failed() {
			t.Logf("log of %v:\n%s", l.cmd.Args, l.log)
		}
	})
}

// stop ends it as Kubernetes does, and wants it to end well.
func (l *local) stop(t *testing.T) {
	t.Helper()
	if err := errors.Join(l.cmd.Process.Signal(os.Interrupt), l.cmd.Wait()); err != nil {
		t.Errorf("portico ended with %v", err)
	}
}

// freePort is an address of the machine where nobody listens at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func (l *local) adminJSON(ctx context.Context, path string, into any) error {
	status, body, err := get(ctx, "http://"+l.admin+path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", status, body)
	}
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	return err
}

// waitReady waits until it serves.
func (l *local) waitReady(t *testing.T) {
	t.Helper()
	suite.Wait(t, 15*time.Second, "local Portico is ready", func(ctx context.Context) string {
		status, body, err := get(ctx, "http://"+l.admin+"/readyz")
		if err != nil {
			return err.Error()
		}
		if status != http.StatusOK {
			return string(body)
		}
		return ""
	})
}

// get asks something on the machine itself.
func get(ctx context.Context, url string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	hc := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := hc.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}
