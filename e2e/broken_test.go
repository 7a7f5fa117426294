package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

func TestABrokenObjectBreaksNothingElse(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	ca := newAuthority(t)
	d := ns + ".test"
	fine := ca.issue(t, "ECDSA", month, "good."+d)
	putSecret(t, ns, "fine", fine.crt, fine.key)
	putSecret(t, ns, "garbage", []byte("garbage"), []byte("garbage"))

	createIngress(t, ns, withTLS(newIngress("good", rule{host: "good." + d, path: "/", backend: "blue"}), "fine", "good."+d))
	// Half of this one is wrong.
	half := newIngress("half",
		rule{host: "half." + d, path: "/fine", backend: "green"},
		rule{host: "half." + d, path: "/missing", backend: "missing"},
		rule{host: "half." + d, path: "/port", backend: "green:4711"},
		rule{host: "half." + d, path: "/resource", backend: "green"},
		rule{host: "half." + d, path: "/a%zz", backend: "green", kind: specific},
	)
	half.Spec.Rules[0].HTTP.Paths[3].Backend = networkingv1.IngressBackend{Resource: &corev1.TypedLocalObjectReference{Kind: "ConfigMap", Name: "page"}}
	half.Annotations = map[string]string{"portico.dev/sslredirect": "true", "portico.dev/ssl-redirect": "perhaps"}
	createIngress(t, ns, half)
	createIngress(t, ns, withTLS(newIngress("secret", rule{host: "secret." + d, path: "/", backend: "red"}), "garbage", "secret."+d))
	locked := newIngress("locked", rule{host: "locked." + d, path: "/", backend: "red"})
	locked.Annotations = map[string]string{"nginx.ingress.kubernetes.io/auth-url": "http://auth.example/"}
	createIngress(t, ns, locked)
	e.settle(t)
	e.waitAnsweredBy(t, "green", "http://half."+d+"/fine")

	for _, tt := range []struct{ name, url, want string }{
		{"the good one", "https://good." + d + "/", "blue"},
		{"the good path of a bad one", "http://half." + d + "/fine", "green"},
		{"a Service that does not exist", "http://half." + d + "/missing", "503"},
		{"a port that does not exist", "http://half." + d + "/port", "503"},
		{"a backend that is no Service", "http://half." + d + "/resource", "503"},
		{"a path that cannot be", "http://half." + d + "/a%25zz", "404"},
		{"a Secret that is garbage", "https://secret." + d + "/", "red"},
		{"protection that Portico does not have", "http://locked." + d + "/", "503"},
	} {
		t.Run(tt.name, func(t *testing.T) { e.mustBeAnsweredBy(t, tt.want, tt.url, "--insecure") })
	}
	for _, tt := range []struct{ name, text, reason string }{
		{"half", "missing does not exist", "ServiceUnusable"},
		{"half", "4711", "ServiceUnusable"},
		{"half", "resource backends are not supported", "NotSupported"},
		{"half", "cannot be matched", "Rejected"},
		{"half", "did you mean portico.dev/ssl-redirect", "BadAnnotation"},
		{"half", `"perhaps"`, "BadAnnotation"},
		{"secret", "garbage", "BadCertificate"},
		{"locked", "authentication", "NotServedUnprotected"},
	} {
		t.Run("a Problem and an Event say "+tt.text, func(t *testing.T) {
			e.waitProblem(t, "Ingress", ns, tt.name, tt.text)
			waitEvent(t, "Ingress", ns, tt.name, tt.reason)
		})
	}
	e.waitNoProblem(t, "Ingress", ns, "good")
	out := kubectl(t, "describe", "ingress", "half", "-n", ns)
	if !strings.Contains(out, "ServiceUnusable") {
		t.Errorf("kubectl describe does not show the Event:\n%s", out)
	}

	t.Run("and what is mended is served", func(t *testing.T) {
		patchIngress(t, ns, "locked", `{"metadata":{"annotations":null}}`)
		e.waitAnsweredBy(t, "red", "http://locked."+d+"/")
		e.waitNoProblem(t, "Ingress", ns, "locked")
		kubectl(t, "create", "service", "clusterip", "missing", "-n", ns, "--tcp=80:8080")
		createSlice(t, ns, "missing", "missing", 8080, endpoint{ip: paint(t)["red"]})
		e.waitProblem(t, "Ingress", ns, "half", "missing") // it has no port called http yet
	})
}
