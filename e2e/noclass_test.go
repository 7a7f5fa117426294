package e2e

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The class of all Ingresses is gone, so this runs alone.
func TestWithoutItsClassNoIngressIsServed(t *testing.T) {
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	host := ns + ".test"
	createClass(t, ns, controllerName)
	createIngress(t, ns, newIngress("classless", rule{host: host, path: "/", backend: "blue"}))
	other := newIngress("other", rule{host: "other." + host, path: "/", backend: "green"})
	other.Spec.IngressClassName = &ns
	createIngress(t, ns, other)
	e.settle(t)
	e.waitAnsweredBy(t, "blue", "http://"+host+"/")

	class, err := client.NetworkingV1().IngressClasses().Get(t.Context(), porticoClass, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	deleteClass(t, porticoClass)
	t.Cleanup(func() {
		// It has to come back whatever happens: all other tests need it.
		_, err := up.KubectlInput(context.Background(), "", "apply", "-k", installFolder)
		if err != nil {
			t.Error(err)
		}
	})
	e.waitAnsweredBy(t, "404", "http://"+host+"/")
	e.waitProblem(t, "Ingress", ns, "classless", `IngressClass "portico" does not exist`)
	waitEvent(t, "Ingress", ns, "classless", "ClassMissing")
	e.mustBeAnsweredBy(t, "green", "http://other."+host+"/")
	e.waitNoProblem(t, "Ingress", ns, "other")

	class.ObjectMeta = metav1.ObjectMeta{Name: class.Name, Labels: class.Labels, Annotations: class.Annotations}
	if _, err := client.NetworkingV1().IngressClasses().Create(t.Context(), class, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e.waitAnsweredBy(t, "blue", "http://"+host+"/")
	e.waitNoProblem(t, "Ingress", ns, "classless")
}
