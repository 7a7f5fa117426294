package e2e

import (
	"context"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func createClass(t *testing.T, name, controller string) {
	t.Helper()
	_, err := client.NetworkingV1().IngressClasses().Create(t.Context(), &networkingv1.IngressClass{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{testLabel: ""}},
		Spec:       networkingv1.IngressClassSpec{Controller: controller},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // it may be gone
		err := client.NetworkingV1().IngressClasses().Delete(context.Background(), name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
}

func deleteClass(t *testing.T, name string) {
	t.Helper()
	if err := client.NetworkingV1().IngressClasses().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// setDefaultClass makes a class the default one, or no longer.
func setDefaultClass(t *testing.T, name, isDefault string) {
	t.Helper()
	patch := `{"metadata":{"annotations":{"` + networkingv1.AnnotationIsDefaultIngressClass + `":` + isDefault + `}}}`
	if _, err := client.NetworkingV1().IngressClasses().Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestAnIngressIsServedIfItsClassSaysSo(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	createClass(t, ns+"-ours", controllerName)
	createClass(t, ns+"-another", "example.com/another")
	classes := map[string]struct {
		class  *string
		legacy string
		want   string
	}{
		"the shipped class":                   {class: new(porticoClass), want: "blue"},
		"another class of our controller":     {class: new(ns + "-ours"), want: "blue"},
		"a class of another controller":       {class: new(ns + "-another"), want: "404"},
		"a class that does not exist":         {class: new("nowhere-" + ns), want: "404"},
		"the legacy annotation with our name": {legacy: porticoClass, want: "blue"},
		"the legacy annotation of another":    {legacy: "nginx", want: "404"},
		"no class":                            {want: "404"},
	}
	hosts := map[string]string{}
	for name, tt := range classes {
		host := "c" + string(rune('a'+len(hosts))) + "." + ns + ".test"
		hosts[name] = host
		ing := newIngress(host[:2], rule{host: host, path: "/", backend: "blue"})
		ing.Spec.IngressClassName = tt.class
		if tt.legacy != "" {
			ing.Annotations = map[string]string{"kubernetes.io/ingress.class": tt.legacy}
		}
		createIngress(t, ns, ing)
	}
	e.settle(t)
	e.waitAnsweredBy(t, "blue", "http://"+hosts["another class of our controller"]+"/")
	for name, tt := range classes {
		t.Run(name, func(t *testing.T) { e.mustBeAnsweredBy(t, tt.want, "http://"+hosts[name]+"/") })
	}

	whole := t // the restored class is for the cases after it, too
	t.Run("a class removed and restored live", func(t *testing.T) {
		host := hosts["another class of our controller"]
		deleteClass(t, ns+"-ours")
		e.waitAnsweredBy(t, "404", "http://"+host+"/")
		e.mustBeAnsweredBy(t, "blue", "http://"+hosts["the shipped class"]+"/")
		createClass(whole, ns+"-ours", controllerName)
		e.waitAnsweredBy(t, "blue", "http://"+host+"/")
	})
	t.Run("a class changed in the Ingress", func(t *testing.T) {
		host := hosts["the shipped class"]
		patchIngress(t, ns, host[:2], `{"spec":{"ingressClassName":"`+ns+`-another"}}`)
		e.waitAnsweredBy(t, "404", "http://"+host+"/")
		patchIngress(t, ns, host[:2], `{"spec":{"ingressClassName":"portico"}}`)
		e.waitAnsweredBy(t, "blue", "http://"+host+"/")
	})
	t.Run("a class that is the default one now", func(t *testing.T) {
		host := hosts["no class"]
		setDefaultClass(t, ns+"-ours", `"true"`)
		e.waitAnsweredBy(t, "blue", "http://"+host+"/")
		setDefaultClass(t, ns+"-ours", `null`)
		e.waitAnsweredBy(t, "404", "http://"+host+"/")
	})
	t.Run("a default class of another controller", func(t *testing.T) {
		setDefaultClass(t, ns+"-another", `"true"`)
		defer setDefaultClass(t, ns+"-another", `null`)
		e.settle(t)
		e.mustBeAnsweredBy(t, "404", "http://"+hosts["no class"]+"/")
	})
}
