package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/e2e/image"
	"github.com/portico-ingress/portico/e2e/suite"
)

// grpcBackend is the server of gRPC's interoperability tests, without TLS and
// with it, and a Service whose ports say what they speak where they can.
const grpcBackend = `
apiVersion: v1
kind: Pod
metadata: {name: interop, labels: {app: interop}}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  volumes: [{name: tls, secret: {secretName: backend}}]
  containers:
  - name: plain
    image: localhost/grpc-interop-server:1
    imagePullPolicy: Never
    args: [--port=10000]
    ports: [{name: plain, containerPort: 10000}]
    readinessProbe: {tcpSocket: {port: plain}, periodSeconds: 1}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  - name: secure
    image: localhost/grpc-interop-server:1
    imagePullPolicy: Never
    args: [--port=10001, --use_tls, --tls_cert_file=/tls/tls.crt, --tls_key_file=/tls/tls.key]
    ports: [{name: secure, containerPort: 10001}]
    readinessProbe: {tcpSocket: {port: secure}, periodSeconds: 1}
    volumeMounts: [{name: tls, mountPath: /tls, readOnly: true}]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: interop}
spec:
  selector: {app: interop}
  ports:
  - {name: told, port: 80, targetPort: plain, appProtocol: kubernetes.io/h2c}
  - {name: plain, port: 81, targetPort: plain}
  - {name: secure, port: 443, targetPort: secure}
`

// interopCases are those of gRPC's own tests that need no cloud.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response",
	"custom_metadata", "status_code_and_message", "special_status_message",
	"unimplemented_method", "unimplemented_service",
}

// grpcHosts makes a host for each way to say that a Service speaks gRPC, and
// returns them by that way.
func grpcHosts(t *testing.T, ns string, ca *authority) map[string]string {
	t.Helper()
	d := ns + ".test"
	edgeCert := ca.issue(t, "ECDSA", month, "*."+d)
	putSecret(t, ns, "tls", edgeCert.crt, edgeCert.key)
	backendCert := ca.issue(t, "ECDSA", month, "interop.internal")
	putSecret(t, ns, "backend", backendCert.crt, backendCert.key)
	archive := filepath.Join(t.TempDir(), "interop.tar")
	if err := image.WriteFile(image.Config{Binary: up.Program("grpc-interop-server"), Name: "localhost/grpc-interop-server:1"}, archive); err != nil {
		t.Fatal(err)
	}
	if err := up.LoadImage(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	apply(t, ns, grpcBackend)
	hosts := map[string]string{}
	for _, way := range []struct{ name, port, annotation string }{
		{"appProtocol", "told", ""},
		{"GRPC", "plain", "GRPC"},
		{"GRPCS", "secure", "GRPCS"},
	} {
		host := strings.ToLower(way.name) + "." + d
		hosts[way.name] = host
		ing := withTLS(newIngress(strings.ToLower(way.name), rule{host: host, path: "/", backend: "interop:" + way.port}), "tls", host)
		if way.annotation != "" {
			ing.Annotations = map[string]string{"nginx.ingress.kubernetes.io/backend-protocol": way.annotation}
		}
		createIngress(t, ns, ing)
	}
	suite.Wait(t, time.Minute, "the interop server", func(ctx context.Context) string {
		p, err := client.CoreV1().Pods(ns).Get(ctx, "interop", metav1.GetOptions{})
		if err != nil {
			return err.Error()
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return ""
			}
		}
		return string(p.Status.Phase)
	})
	return hosts
}

// grpcurl calls a method of the interop server through a node, and returns what
// grpcurl wrote.
func (e *edge) grpcurl(ctx context.Context, ca *authority, host, method string, args ...string) (string, error) {
	argv := append([]string{
		up.Program("grpcurl"), "-max-time", "10", "-cacert", ca.file, "-authority", host,
		"-import-path", "testdata/grpc", "-proto", "test.proto",
	}, args...)
	return up.ExecClient(ctx, append(argv, netJoin(e.next(), e.https), method)...)
}

// The clients and the server are gRPC's own.
func TestGRPC(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	ca := newAuthority(t)
	hosts := grpcHosts(t, ns, ca)
	e.settle(t)
	for way, host := range hosts {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			suite.Wait(t, 30*time.Second, "a call by "+way, func(ctx context.Context) string {
				if _, err := e.grpcurl(ctx, ca, host, "grpc.testing.TestService/EmptyCall"); err != nil {
					return err.Error()
				}
				return ""
			})
			for _, name := range interopCases {
				t.Run(name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					defer cancel()
					_, err := up.ExecClient(ctx, up.Program("grpc-interop-client"),
						"--server_host="+e.next(), fmt.Sprintf("--server_port=%d", e.https),
						"--use_tls", "--use_test_ca", "--ca_file="+ca.file, "--server_host_override="+host, "--test_case="+name)
					if err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

// Whatever goes wrong on the way, a gRPC client is told in its own words.
func TestGRPCClientsAreToldInGRPCWhatPorticoRefuses(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	ca := newAuthority(t)
	d := ns + ".test"
	c := ca.issue(t, "ECDSA", month, "*."+d)
	putSecret(t, ns, "tls", c.crt, c.key)
	ing := withTLS(newIngress("grpc",
		rule{host: "gone." + d, path: "/", backend: "missing:80"},
		rule{host: "path." + d, path: "/elsewhere", backend: "blue"},
	), "tls", "gone."+d, "path."+d)
	createIngress(t, ns, ing)
	e.settle(t)
	e.waitCertificate(t, "gone."+d, c.serial)
	for host, want := range map[string]string{"gone." + d: "Unavailable", "path." + d: "Unimplemented"} {
		out, err := e.grpcurl(t.Context(), ca, host, "grpc.testing.TestService/EmptyCall")
		if err == nil || !strings.Contains(err.Error(), "Code: "+want) {
			t.Errorf("%s: want the code %s, got %v\n%s", host, want, err, out)
		}
	}
}

// Messages of some megabytes in both directions, in one call.
func TestGRPCTakesLargeMessages(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	ca := newAuthority(t)
	host := grpcHosts(t, ns, ca)["appProtocol"]
	e.settle(t)
	const size = 3 << 20
	file := filepath.Join(t.TempDir(), "request.json")
	body := strings.Repeat("QUJD", size/3)
	if err := os.WriteFile(file, fmt.Appendf(nil, `{"response_size": %d, "payload": {"body": %q}}`, size, body), 0o644); err != nil {
		t.Fatal(err)
	}
	suite.Wait(t, 30*time.Second, "a large answer", func(ctx context.Context) string {
		in, err := os.Open(file)
		if err != nil {
			return err.Error()
		}
		defer func() { _ = in.Close() }()
		cmd, err := up.Command(ctx, "client", up.Program("grpcurl"), "-max-time", "20", "-max-msg-sz", "8000000", "-cacert", ca.file,
			"-authority", host, "-import-path", "testdata/grpc", "-proto", "test.proto", "-d", "@",
			netJoin(e.next(), e.https), "grpc.testing.TestService/UnaryCall")
		if err != nil {
			return err.Error()
		}
		cmd.Stdin = in
		out, err := cmd.Output()
		if err != nil {
			return fmt.Sprint(err, " ", string(out[:min(len(out), 300)]))
		}
		if len(out) < size*4/3 {
			return fmt.Sprintf("%d bytes of JSON came back", len(out))
		}
		return ""
	})
}
