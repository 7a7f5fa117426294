package addresses

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Finalizer keeps a Service until its address is given back. Kubernetes itself has the name
// (k8s.io/cloud-provider/service/helpers), and its tests expect it.
const Finalizer = "service.kubernetes.io/load-balancer-cleanup"

// maxNote is what the API server takes as the text of an Event.
const maxNote = 1024

// writer makes a Service in the API server what was decided about it.
type writer struct {
	client   kubernetes.Interface
	identity string
}

// agrees says that a Service is already as decided.
func agrees(svc *corev1.Service, d Decision, ours bool) bool {
	if !ours {
		_, was := svc.Annotations[AnnotationFrom]
		return !was && !Explained(svc)
	}
	if d.foreign {
		return sameCondition(conditionIn(svc), conditionOf(svc, d))
	}
	return (len(d.Addresses) == 0 || marked(svc, d.Pool)) && sameCondition(conditionIn(svc), conditionOf(svc, d)) &&
		slices.EqualFunc(ingressOf(svc, d), svc.Status.LoadBalancer.Ingress, sameIngress)
}

// marked says whether a Service has the finalizer, and the name of its pool; "" is of none any more.
func marked(svc *corev1.Service, pool string) bool {
	had, marked := svc.Annotations[AnnotationFrom]
	return slices.Contains(svc.Finalizers, Finalizer) && marked && (pool == "" || had == pool)
}

// apply writes what differs, in an order that can be broken off anywhere: first the finalizer
// and the pool, so that no address is in a status that nobody takes back; then the status. What
// is given back goes the other way.
func (w writer) apply(ctx context.Context, svc *corev1.Service, d Decision, ours bool) error {
	if !ours {
		return w.clear(ctx, svc)
	}
	if len(d.Addresses) > 0 {
		if err := w.mark(ctx, svc, d.Pool); err != nil {
			return err
		}
	}
	ingress := ingressOf(svc, d)
	if d.foreign {
		ingress = svc.Status.LoadBalancer.Ingress
	}
	return w.status(ctx, svc, ingress, conditionOf(svc, d))
}

// clear takes our traces off a Service that is not ours any more, or is being deleted. A
// Service without our annotation was never ours: whoever put the finalizer there takes it away.
func (w writer) clear(ctx context.Context, svc *corev1.Service) error {
	_, was := svc.Annotations[AnnotationFrom]
	ingress := svc.Status.LoadBalancer.Ingress
	if was { // also if it is being deleted: somebody else's finalizer may keep it for long, and its address is another's soon
		ingress = nil
	}
	if err := w.status(ctx, svc, ingress, nil); err != nil || !was {
		return err
	}
	finalizers := slices.DeleteFunc(slices.Clone(svc.Finalizers), func(f string) bool { return f == Finalizer })
	return w.patch(ctx, svc, map[string]any{
		"finalizers": finalizers, "annotations": map[string]any{AnnotationFrom: nil},
	})
}

func (w writer) mark(ctx context.Context, svc *corev1.Service, pool string) error {
	if marked(svc, pool) {
		return nil
	}
	if pool == "" { // of no pool any more: it was of this one
		pool, _ = allocatedFrom(svc)
	}
	finalizers := svc.Finalizers
	if !slices.Contains(finalizers, Finalizer) {
		finalizers = append(slices.Clone(finalizers), Finalizer)
	}
	return w.patch(ctx, svc, map[string]any{
		"finalizers": finalizers, "annotations": map[string]any{AnnotationFrom: pool},
	})
}

// patch changes metadata, if the finalizers are still those that were read.
func (w writer) patch(ctx context.Context, svc *corev1.Service, metadata map[string]any) error {
	metadata["resourceVersion"] = svc.ResourceVersion
	metadata["uid"] = svc.UID
	body, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return err
	}
	stored, err := w.client.CoreV1().Services(svc.Namespace).Patch(ctx, svc.Name, types.MergePatchType, body, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		svc.ResourceVersion, svc.Finalizers, svc.Annotations = stored.ResourceVersion, stored.Finalizers, stored.Annotations
	}
	return err
}

// status makes the addresses and our condition the wanted ones, and changes nothing else, if the Service is still
// the one that was read: it may have been read in part.
func (w writer) status(ctx context.Context, svc *corev1.Service, ingress []corev1.LoadBalancerIngress, condition *metav1.Condition) error {
	change := map[string]any{}
	if !slices.EqualFunc(ingress, svc.Status.LoadBalancer.Ingress, sameIngress) {
		change["loadBalancer"] = map[string]any{"ingress": ingress}
	}
	if had := conditionIn(svc); !sameCondition(had, condition) {
		change["conditions"] = []any{patchOf(had, condition, metav1.Now())}
	}
	if len(change) == 0 {
		return nil
	}
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": svc.ResourceVersion, "uid": svc.UID}, "status": change,
	})
	if err != nil {
		return err
	}
	stored, err := w.client.CoreV1().Services(svc.Namespace).Patch(ctx, svc.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		svc.ResourceVersion, svc.Status = stored.ResourceVersion, stored.Status
	}
	return err
}

// ingressOf is the status. ipMode VIP says that packets arrive with the address as their
// destination, so that a node may take a short cut.
func ingressOf(svc *corev1.Service, d Decision) []corev1.LoadBalancerIngress {
	mode := corev1.LoadBalancerIPModeVIP
	var all []corev1.LoadBalancerIngress
	for _, addr := range d.Addresses {
		in := corev1.LoadBalancerIngress{IP: addr.String(), IPMode: &mode}
		for _, old := range svc.Status.LoadBalancer.Ingress {
			if old.IP == in.IP {
				in.Ports = old.Ports
			}
		}
		all = append(all, in)
	}
	return all
}

func sameIngress(a, b corev1.LoadBalancerIngress) bool {
	return a.IP == b.IP && a.Hostname == b.Hostname && (a.IPMode == nil) == (b.IPMode == nil) && (a.IPMode == nil || *a.IPMode == *b.IPMode)
}

// event tells people on the object itself. kind is Normal or Warning.
func (w writer) event(ctx context.Context, about corev1.ObjectReference, kind, reason, note string) error {
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	note = shorten(note, maxNote)
	now := time.Now()
	_, err := w.client.EventsV1().Events(namespace).Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%.200s.%x", about.Name, now.UnixNano()), Namespace: namespace},
		EventTime:  metav1.NewMicroTime(now), ReportingController: "portico.dev/svcproxy", ReportingInstance: w.identity,
		Action: "AllocateAddress", Reason: reason, Regarding: about, Note: note, Type: kind,
	}, metav1.CreateOptions{})
	return err
}
