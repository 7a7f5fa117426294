package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/portico-ingress/portico/e2e/suite"
)

// echoReport is what the echo backend answers: the request as it saw it.
type echoReport struct {
	Name        string              `json:"name"`
	Pod         string              `json:"pod"`
	Method      string              `json:"method"`
	RequestURI  string              `json:"requestURI"`
	Host        string              `json:"host"`
	Proto       string              `json:"proto"`
	Headers     map[string][]string `json:"headers"`
	HeaderLines []string            `json:"headerLines"`
	Trailers    map[string][]string `json:"trailers"`
	RemoteAddr  string              `json:"remoteAddr"`
	LocalAddr   string              `json:"localAddr"`
	BodyLength  int64               `json:"bodyLength"`
	BodySHA256  string              `json:"bodySHA256"`
}

// echoBackend describes an echo Deployment and its Service.
type echoBackend struct {
	name     string
	replicas int
	nodePort bool   // otherwise a ClusterIP Service
	lameDuck string // empty: 5s
	port     int    // that it listens on, called http; zero: 8080
	alsoPort int    // another, called also; zero: none
	app      string // the Pods' label; empty: name
	bare     bool   // without a Service
}

// yaml is the backend as Kubernetes objects. Its Pods are spread over the nodes
// and meet the restricted Pod Security standard.
func (b echoBackend) yaml() string {
	if b.app == "" {
		b.app = b.name
	}
	if b.port == 0 {
		b.port = 8080
	}
	if b.lameDuck == "" {
		b.lameDuck = "5s"
	}
	ports, declared := strconv.Itoa(b.port), fmt.Sprintf("{name: http, containerPort: %d}", b.port)
	if b.alsoPort != 0 {
		ports += "," + strconv.Itoa(b.alsoPort)
		declared += fmt.Sprintf(", {name: also, containerPort: %d}", b.alsoPort)
	}
	yaml := fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[3]s, echo: %[1]s}}
  template:
    metadata: {labels: {app: %[3]s, echo: %[1]s}}
    spec:
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {echo: %[1]s}}
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: echo
        image: localhost/echo:1
        imagePullPolicy: Never
        env:
        - {name: NAME, value: %[1]s}
        - {name: LAMEDUCK, value: %[4]s}
        - {name: PORTS, value: "%[5]s"}
        ports: [%[6]s]
        readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1}
        securityContext:
          readOnlyRootFilesystem: true
          allowPrivilegeEscalation: false
          capabilities: {drop: [ALL]}
`, b.name, b.replicas, b.app, b.lameDuck, ports, declared)
	if b.bare {
		return yaml
	}
	service := "ClusterIP"
	if b.nodePort {
		service = "NodePort"
	}
	return yaml + fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  type: %[2]s
  selector: {app: %[3]s}
  ports: [{name: http, port: 80, targetPort: http}]
`, b.name, service, b.app)
}

// deployEcho applies a backend and waits until its Pods are ready.
func deployEcho(t *testing.T, namespace string, b echoBackend) {
	t.Helper()
	apply(t, namespace, b.yaml())
	waitRollout(t, namespace, b.name)
}

// waitRollout waits until a Deployment is as it should be.
func waitRollout(t *testing.T, namespace, name string) {
	t.Helper()
	suite.Wait(t, 90*time.Second, "rollout of "+name, func(ctx context.Context) string {
		d, err := client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		s, want := d.Status, *d.Spec.Replicas
		if s.ObservedGeneration < d.Generation || s.UpdatedReplicas != want || s.Replicas != want || s.AvailableReplicas != want {
			return fmt.Sprintf("%d wanted, %d updated, %d in all, %d available", want, s.UpdatedReplicas, s.Replicas, s.AvailableReplicas)
		}
		return ""
	})
}

// nodePort is the port at which every node offers a Service.
func nodePort(t *testing.T, namespace, service string) int {
	t.Helper()
	s, err := client.CoreV1().Services(namespace).Get(t.Context(), service, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return int(s.Spec.Ports[0].NodePort)
}

// scale sets a Deployment's number of Pods, without waiting.
func scale(t *testing.T, namespace, name string, replicas int) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"replicas":%d}}`, replicas)
	if _, err := client.AppsV1().Deployments(namespace).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// readyEndpoints are the addresses of a Service's IPv4 endpoints that are
// ready, each with its node.
func readyEndpoints(ctx context.Context, namespace, service string) (map[string]string, error) {
	slices, err := client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + service,
	})
	if err != nil {
		return nil, err
	}
	ready := map[string]string{}
	for _, s := range slices.Items {
		if s.AddressType != discoveryv1.AddressTypeIPv4 {
			continue
		}
		for _, e := range s.Endpoints {
			if e.Conditions.Ready != nil && *e.Conditions.Ready {
				ready[e.Addresses[0]] = *e.NodeName
			}
		}
	}
	return ready, nil
}

// waitEndpoints waits until a Service has that many ready endpoints.
func waitEndpoints(t *testing.T, namespace, service string, want int) map[string]string {
	t.Helper()
	var found map[string]string
	waitFor(t, time.Minute, fmt.Sprintf("%d endpoints of %s", want, service), func(ctx context.Context) string {
		var err error
		if found, err = readyEndpoints(ctx, namespace, service); err != nil {
			return err.Error()
		}
		if len(found) != want {
			return fmt.Sprintf("it has %v", found)
		}
		return ""
	})
	return found
}

// echo asks a URL that leads to an echo backend.
func echo(ctx context.Context, args ...string) (echoReport, error) {
	var rep echoReport
	out, err := curl(ctx, args...)
	if err != nil {
		return rep, err
	}
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&rep); err != nil {
		return rep, fmt.Errorf("not an echo's answer: %w in %q", err, out)
	}
	return rep, nil
}
