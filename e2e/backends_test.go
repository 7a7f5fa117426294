package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/portico-ingress/portico/e2e/suite"
)

// samples asks a URL until each of the wanted has been seen among what see finds in the
// answers, and nothing else for a few answers in a row: a replica may know a moment later
// than the other. Then it asks some more, and nothing else may be seen.
func (e *edge) samples(t *testing.T, url string, see func(answer) string, want ...string) {
	t.Helper()
	missing := map[string]bool{}
	for _, w := range want {
		missing[w] = true
	}
	allowed := strings.Join(want, " ")
	row := 0 // of wanted answers; the nodes are asked in turn
	e.eventually(t, 20*time.Second, func(a answer) string {
		s := see(a)
		delete(missing, s)
		row++
		if !contains(want, s) {
			row = 0
		}
		switch {
		case len(missing) > 0:
			return fmt.Sprintf("not seen: %v", missing)
		case row < 4:
			return fmt.Sprintf("%d wanted answers in a row, the last one from %q", row, s)
		}
		return ""
	}, url)
	for range 4 * len(want) {
		a := e.ask(t.Context(), url)
		if s := see(a); !contains(want, s) {
			t.Errorf("saw %q, want only %s\n%s", s, allowed, a)
		}
	}
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}

func seeName(a answer) string { return a.by() }

// seePort is the port at which the backend was reached.
func seePort(a answer) string {
	_, port, _ := net.SplitHostPort(a.echo.LocalAddr)
	return port
}

// seeFamily is the IP family by which the backend was reached.
func seeFamily(a answer) string {
	host, _, _ := net.SplitHostPort(a.echo.LocalAddr)
	switch ip := net.ParseIP(host); {
	case ip == nil:
		return ""
	case ip.To4() != nil:
		return "IPv4"
	}
	return "IPv6"
}

func TestRequestsGoToThePodsOfTheServiceNamed(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	apply(t, ns, strings.Join([]string{
		// One Service, two Deployments, and a port of the same name that is another in each.
		echoBackend{name: "first", app: "both", replicas: 1, port: 8080, alsoPort: 9090, bare: true}.yaml(),
		echoBackend{name: "second", app: "both", replicas: 1, port: 8181, alsoPort: 9191, bare: true}.yaml(),
	}, "\n---\n"))
	both, first := map[string]string{"app": "both"}, map[string]string{"app": "both", "echo": "first"}
	port := func(name string, number int32, target intstr.IntOrString) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: number, TargetPort: target}
	}
	named, number := intstr.FromString, intstr.FromInt32
	createService(t, ns, "named", corev1.ServiceSpec{Selector: both, Ports: []corev1.ServicePort{port("http", 80, named("http"))}})
	createService(t, ns, "number", corev1.ServiceSpec{Selector: first, Ports: []corev1.ServicePort{port("http", 80, number(9090))}})
	createService(t, ns, "same", corev1.ServiceSpec{Selector: first, Ports: []corev1.ServicePort{port("http", 8080, intstr.IntOrString{})}})
	createService(t, ns, "multi", corev1.ServiceSpec{Selector: both, Ports: []corev1.ServicePort{
		port("http", 80, named("http")), port("also", 81, named("also")),
	}})
	createService(t, ns, "unnamed", corev1.ServiceSpec{Selector: first, Ports: []corev1.ServicePort{port("", 80, named("http"))}})
	createService(t, ns, "headless", corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: both, Ports: []corev1.ServicePort{port("http", 80, named("http"))}})
	createService(t, ns, "dual", corev1.ServiceSpec{
		IPFamilyPolicy: new(corev1.IPFamilyPolicyRequireDualStack), Selector: both, Ports: []corev1.ServicePort{port("http", 80, named("http"))},
	})
	createService(t, ns, "six", corev1.ServiceSpec{
		IPFamilies: []corev1.IPFamily{corev1.IPv6Protocol}, Selector: both, Ports: []corev1.ServicePort{port("http", 80, named("http"))},
	})
	cases := []struct {
		name    string
		backend string
		see     func(answer) string
		want    []string
	}{
		{"by the name of the port, which is another number in each Pod", "named:http", seePort, []string{"8080", "8181"}},
		{"by the number of the port, of all Pods", "named:80", seeName, []string{"first", "second"}},
		{"to the number of a target port", "number:http", seePort, []string{"9090"}},
		{"to the port itself without a target port", "same:8080", seePort, []string{"8080"}},
		{"to the first of several ports by name", "multi:http", seePort, []string{"8080", "8181"}},
		{"to the second of several ports by number", "multi:81", seePort, []string{"9090", "9191"}},
		{"to a port without a name", "unnamed:80", seePort, []string{"8080"}},
		{"of a headless Service", "headless:http", seePort, []string{"8080", "8181"}},
		{"of both IP families", "dual:http", seeFamily, []string{"IPv4", "IPv6"}},
		{"of IPv6 alone", "six:http", seeFamily, []string{"IPv6"}},
	}
	host := ns + ".test"
	var rules []rule
	for i, tt := range cases {
		rules = append(rules, rule{host: host, path: fmt.Sprintf("/%d", i), backend: tt.backend})
	}
	createIngress(t, ns, newIngress("backends", rules...))
	waitRollout(t, ns, "first")
	waitRollout(t, ns, "second")
	for i, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e.samples(t, fmt.Sprintf("http://%s/%d", host, i), tt.see, tt.want...)
		})
	}
}

var (
	isReady       = discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)}
	isNotReady    = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false), Terminating: new(false)}
	isTerminating = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
	isGoing       = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false), Terminating: new(true)}
)

// KEP-1669, with EndpointSlices written by hand.
func TestTerminatingEndpointsServeOnlyWhenNothingIsReady(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	ips := paint(t)
	host := ns + ".test"
	createService(t, ns, "mixed", corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}})
	createSlice(t, ns, "mixed", "mixed", 8080)
	createIngress(t, ns, newIngress("mixed", rule{host: host, path: "/", backend: "mixed"}))
	e.waitAnsweredBy(t, "503", "http://"+host+"/")
	at := func(colour string, c discoveryv1.EndpointConditions) endpoint { return endpoint{ips[colour], c} }
	for _, tt := range []struct {
		name      string
		endpoints []endpoint
		want      []string
	}{
		{"all ready", []endpoint{at("blue", isReady), at("green", isReady), at("red", isReady)}, []string{"blue", "green", "red"}},
		{"one not ready", []endpoint{at("blue", isReady), at("green", isNotReady)}, []string{"blue"}},
		{"one terminating beside a ready one", []endpoint{at("red", isReady), at("green", isTerminating)}, []string{"red"}},
		{"terminating ones alone", []endpoint{at("blue", isTerminating), at("green", isTerminating), at("red", isNotReady)}, []string{"blue", "green"}},
		{"terminating, of which one serves no more", []endpoint{at("red", isTerminating), at("green", isGoing)}, []string{"red"}},
		{"nothing said about the conditions", []endpoint{at("blue", discoveryv1.EndpointConditions{})}, []string{"blue"}},
		{"the same one twice", []endpoint{at("green", isReady), at("green", isTerminating)}, []string{"green"}},
		{"none that serves", []endpoint{at("blue", isNotReady), at("green", isGoing)}, []string{"503"}},
		{"ready again", []endpoint{at("blue", isReady)}, []string{"blue"}},
		{"none at all", nil, []string{"503"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			updateSlice(t, ns, "mixed", "mixed", 8080, tt.endpoints...)
			e.waitEndpoints(t, ns+"/mixed", tt.endpoints)
			e.samples(t, "http://"+host+"/", seeName, tt.want...)
		})
	}
}

// waitEndpoints waits until every replica has the used ones of the endpoints and
// no others as those of a Service.
func (e *edge) waitEndpoints(t *testing.T, service string, endpoints []endpoint) {
	t.Helper()
	want := map[string]bool{}
	for _, state := range []discoveryv1.EndpointConditions{isReady, isTerminating} {
		for _, ep := range endpoints {
			c := ep.conditions
			ready := c.Ready == nil || *c.Ready
			if *state.Ready && ready || !*state.Ready && !ready && *c.Serving && *c.Terminating {
				want[net.JoinHostPort(ep.ip, "8080")] = true
			}
		}
		if len(want) > 0 {
			break
		}
	}
	suite.Wait(t, 15*time.Second, "endpoints of "+service, func(ctx context.Context) string {
		for _, r := range e.all() {
			got, err := r.endpoints(ctx, service)
			if err != nil {
				return err.Error()
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				return fmt.Sprintf("%s has %v, want %v", r.pod, got, want)
			}
		}
		return ""
	})
}

// endpoints are the addresses that a replica has for a Service.
func (r replica) endpoints(ctx context.Context, service string) (map[string]bool, error) {
	var v backendsView
	if err := r.adminJSON(ctx, "/api/v1/backends", &v); err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, b := range v.Backends {
		if b.Name == service || strings.HasPrefix(b.Name, service+":") {
			for _, ep := range b.Endpoints {
				found[ep.Address] = true
			}
		}
	}
	return found, nil
}

func TestAPodThatIsNotReadyGetsNoRequests(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	deployEcho(t, ns, echoBackend{name: "echo", replicas: 2, lameDuck: "4s"})
	host := ns + ".test"
	createIngress(t, ns, newIngress("echo", rule{host: host, path: "/", backend: "echo"}))
	list, err := client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 2 {
		t.Fatalf("%d Pods, %v", len(list.Items), err)
	}
	pods := list.Items
	seePod := func(a answer) string { return a.echo.Pod + statusUnlessOK(a) }
	e.samples(t, "http://"+host+"/", seePod, pods[0].Name, pods[1].Name)

	setReady(t, &pods[0], false)
	waitEndpoints(t, ns, "echo", 1)
	e.samples(t, "http://"+host+"/", seePod, pods[1].Name)
	setReady(t, &pods[1], false)
	waitEndpoints(t, ns, "echo", 0)
	e.waitAnsweredBy(t, "503", "http://"+host+"/")
	setReady(t, &pods[0], true)
	setReady(t, &pods[1], true)
	waitEndpoints(t, ns, "echo", 2)
	e.samples(t, "http://"+host+"/", seePod, pods[0].Name, pods[1].Name)

	// Scaled to none, they go on serving while they terminate, and then nobody does.
	scale(t, ns, "echo", 0)
	waitEndpoints(t, ns, "echo", 0)
	start, served := time.Now(), 0
	e.eventually(t, 30*time.Second, func(a answer) string {
		if a.status == http.StatusOK {
			served++
		}
		return answeredBy("503")(a)
	}, "http://"+host+"/")
	t.Logf("scaled to 0: %d requests served by terminating Pods, the first 503 after %s", served, time.Since(start).Round(time.Millisecond))
	if served == 0 {
		t.Error("terminating Pods that serve got no requests though nothing was ready")
	}
}

func statusUnlessOK(a answer) string {
	if a.status == http.StatusOK {
		return ""
	}
	return a.by()
}

// setReady makes an echo Pod ready or not.
func setReady(t *testing.T, pod *corev1.Pod, ready bool) {
	t.Helper()
	url := fmt.Sprintf("http://%s/ready?state=%t", net.JoinHostPort(pod.Status.PodIP, "8080"), ready)
	if _, err := up.Exec(t.Context(), pod.Spec.NodeName, "curl", "-fsS", "-X", "POST", "--max-time", "5", url); err != nil {
		t.Fatal(err)
	}
}

func TestAnExternalNameIsResolvedAgainAndAgain(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	ips := paint(t)
	host := ns + ".test"
	name := func(s string) string { return s + "." + ns + ".example" }
	e.dns.set(name("moves"), ips["blue"])
	e.dns.set(name("several"), ips["green"], ips["red"])
	e.dns.set(name("loopback"), "127.0.0.1")
	e.dns.set(name("link-local"), "169.254.169.254")
	var rules []rule
	for _, s := range []string{"moves", "several", "loopback", "link-local", "unknown"} {
		createService(t, ns, s, corev1.ServiceSpec{
			Type: corev1.ServiceTypeExternalName, ExternalName: name(s),
			Ports: []corev1.ServicePort{{Name: "http", Port: 8080}},
		})
		rules = append(rules, rule{host: host, path: "/" + s, backend: s + ":8080"})
	}
	// Services of that kind seldom have ports; the Ingress says which one is meant.
	createService(t, ns, "portless", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: name("moves")})
	rules = append(rules, rule{host: host, path: "/portless", backend: "portless:8080"})
	createIngress(t, ns, newIngress("external", rules...))

	e.waitAnsweredBy(t, "blue", "http://"+host+"/moves")
	e.waitAnsweredBy(t, "blue", "http://"+host+"/portless")
	e.samples(t, "http://"+host+"/several", seeName, "green", "red")
	for _, s := range []string{"loopback", "link-local", "unknown"} {
		e.waitAnsweredBy(t, "503", "http://"+host+"/"+s)
	}
	e.waitProblem(t, "Service", ns, "loopback", "leads to 127.0.0.1 (loopback)")
	e.waitProblem(t, "Service", ns, "link-local", "leads to 169.254.169.254 (link-local)")
	e.waitProblem(t, "Service", ns, "unknown", "no such host")
	waitEvent(t, "Service", ns, "loopback", "ExternalNameUnusable")
	e.waitNoProblem(t, "Service", ns, "moves")

	start := time.Now()
	e.dns.set(name("moves"), ips["green"])
	e.eventually(t, 8*time.Second, answeredBy("green"), "http://"+host+"/moves")
	t.Logf("a new address is used after %s", time.Since(start).Round(time.Millisecond))
	start = time.Now()
	e.dns.set(name("unknown"), ips["red"])
	e.eventually(t, 8*time.Second, answeredBy("red"), "http://"+host+"/unknown")
	t.Logf("a name that is there now is used after %s", time.Since(start).Round(time.Millisecond))
	e.waitNoProblem(t, "Service", ns, "unknown")
	// The last addresses of a name stay in use when the DNS does not know it any more.
	e.dns.set(name("unknown"))
	e.waitProblem(t, "Service", ns, "unknown", "the last addresses stay in use")
	e.mustBeAnsweredBy(t, "red", "http://"+host+"/unknown")
}

func TestABackendSeesWhoAsks(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	host := ns + ".test"
	createIngress(t, ns, newIngress("seen", rule{host: host, path: "/", backend: "blue"}))
	e.waitAnsweredBy(t, "blue", "http://"+host+"/")
	a := e.ask(t.Context(), "http://"+host+"/path?query=1", "-H", "X-Forwarded-For: 203.0.113.9", "-H", "X-Real-IP: 203.0.113.9",
		"-H", "X-Request-ID: mine", "-H", "Connection: X-Secret", "-H", "X-Secret: 1", "-H", "X-Kept: 1")
	ip := up.ClientIP().String()
	for field, want := range map[string]string{
		"X-Forwarded-For":   ip, // kube-proxy keeps it, as the Service says
		"X-Real-Ip":         ip,
		"X-Forwarded-Host":  host,
		"X-Forwarded-Proto": "http",
		"X-Forwarded-Port":  "80",
		"X-Secret":          "",
		"X-Kept":            "1",
	} {
		if got := strings.Join(a.echo.Headers[field], ","); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	if id := strings.Join(a.echo.Headers["X-Request-Id"], ","); len(id) != 32 {
		t.Errorf("X-Request-ID is %q, want one of Portico's", id)
	}
	if a.echo.RequestURI != "/path?query=1" || a.echo.Host != host {
		t.Errorf("the backend was asked for %q of %q", a.echo.RequestURI, a.echo.Host)
	}
	if t.Failed() {
		t.Log(a)
	}
}
