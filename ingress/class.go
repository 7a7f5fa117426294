package ingress

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portico-ingress/portico/manifests"
)

// legacyClassAnnotation named the class before spec.ingressClassName did.
const legacyClassAnnotation = "kubernetes.io/ingress.class"

// classReason says why an Ingress is ours or not.
type classReason uint8

const (
	classOurs        classReason = iota // its IngressClass has our controller
	classLegacy                         // the annotation has our name
	classImplicit                       // it has our name, and folders need no object
	classDefault                        // it has no class, and an IngressClass of ours is the default
	classNone                           // it has no class, and those are served too
	classOfAnother                      // its IngressClass has another controller
	classMissing                        // its IngressClass does not exist
	classMissingOurs                    // the same, and it has our name
	classUnnamed                        // it has no class, and those are not served
	classDeleted                        // it is being deleted
)

// ours tells whether the Ingress is to be served.
func (r classReason) ours() bool { return r <= classNone }

// classPolicy is what the decision depends on besides the Ingress.
type classPolicy struct {
	controller        string
	name              string
	watchWithoutClass bool
	implicit          bool
}

// classOf decides whether an Ingress is ours. spec.ingressClassName wins over the annotation.
func (p classPolicy) classOf(ing *networkingv1.Ingress, objects *manifests.Objects) classReason {
	if ing.DeletionTimestamp != nil {
		return classDeleted
	}
	if name := className(ing); name != "" {
		return p.byName(name, objects)
	}
	if legacy := ing.Annotations[legacyClassAnnotation]; legacy != "" {
		if legacy == p.name {
			return classLegacy
		}
		return classOfAnother
	}
	for class := range objects.IngressClasses() {
		if class.Spec.Controller == p.controller && class.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
			return classDefault
		}
	}
	if p.watchWithoutClass {
		return classNone
	}
	return classUnnamed
}

func (p classPolicy) byName(name string, objects *manifests.Objects) classReason {
	class := objects.IngressClass(name)
	switch {
	case class != nil && class.Spec.Controller == p.controller:
		return classOurs
	case class != nil:
		return classOfAnother
	case name != p.name:
		return classMissing
	case p.implicit:
		return classImplicit
	}
	return classMissingOurs
}

// problem tells about what is surely a mistake: a class of ours that is missing, and in a
// folder, which nobody else reads, every Ingress that is not served because of its class.
func (r classReason) problem(ing *networkingv1.Ingress, policy classPolicy) []problem {
	reason, field := reasonOtherClass, "spec.ingressClassName"
	var text string
	switch {
	case r == classMissingOurs:
		reason = reasonClass
		text = fmt.Sprintf("IngressClass %q does not exist, so this Ingress is not served; create it with spec.controller %q",
			policy.name, policy.controller)
	case !policy.implicit:
		return nil
	case r == classUnnamed:
		text = fmt.Sprintf("no class is named, so this Ingress is not served: Portico serves class %q here; write ingressClassName: %s",
			policy.name, policy.name)
	case className(ing) == policy.name && r == classOfAnother:
		text = fmt.Sprintf("IngressClass %q is of another controller, so this Ingress is not served; write spec.controller %q there, or remove that object",
			policy.name, policy.controller)
	case r == classOfAnother, r == classMissing:
		name := className(ing)
		if name == "" {
			name, field = ing.Annotations[legacyClassAnnotation], fmt.Sprintf("metadata.annotations[%s]", legacyClassAnnotation)
		}
		text = fmt.Sprintf("the class is %.260q, so this Ingress is not served: Portico serves class %q here; write ingressClassName: %s",
			name, policy.name, policy.name)
	default:
		return nil
	}
	return []problem{{reason: reason, Problem: manifests.Problem{Object: refOf(ing), Field: field, Text: text}}}
}

func refOf(ing *networkingv1.Ingress) manifests.Ref {
	return manifests.Ref{Kind: manifests.KindIngress, Namespace: ing.Namespace, Name: ing.Name}
}

// className is what spec.ingressClassName says; an empty one says nothing.
func className(ing *networkingv1.Ingress) string {
	if ing.Spec.IngressClassName == nil {
		return ""
	}
	return *ing.Spec.IngressClassName
}
