package balancer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/portico-ingress/portico/svcproxy/announce"
)

const (
	// eventsPerSecond, eventsBurst: a node that dies moves thousands of addresses, and the
	// Events about that are less urgent than anything else.
	eventsPerSecond, eventsBurst = 5, 100
	// eventsWaiting is how many may wait; more are only in the log.
	eventsWaiting = 1000
)

// event is a text about one object.
type event struct {
	object             corev1.ObjectReference
	kind, reason, note string
}

// eventSender writes Events of this node, as the API server has time for them.
type eventSender struct {
	client  kubernetes.Interface
	node    string
	log     *zap.Logger
	limits  flowcontrol.RateLimiter
	waiting chan event
}

func newEventSender(client kubernetes.Interface, node string, log *zap.Logger) *eventSender {
	return &eventSender{
		client: client, node: node, log: log, waiting: make(chan event, eventsWaiting),
		limits: flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventsBurst),
	}
}

// put does not block.
func (s *eventSender) put(e event) {
	select {
	case s.waiting <- e:
	default:
		s.log.Debug("too many Events; left out", zap.String("service", e.object.Namespace+"/"+e.object.Name), zap.String("note", e.note))
	}
}

func (s *eventSender) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-s.waiting:
			if s.limits.Wait(ctx) != nil {
				return
			}
			if err := s.write(ctx, e); err != nil {
				s.log.Warn("Event not written", zap.String("note", e.note), zap.Error(err))
			}
		}
	}
}

func (s *eventSender) write(ctx context.Context, e event) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := s.client.EventsV1().Events(e.object.Namespace).Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: e.object.Namespace, GenerateName: "portico-"},
		EventTime:  metav1.NowMicro(), ReportingController: "portico.dev/svcproxy", ReportingInstance: s.node,
		Action: "AnnounceAddress", Reason: e.reason, Regarding: e.object, Note: e.note, Type: e.kind,
	}, metav1.CreateOptions{})
	return err
}

// happened tells people what became of an address on this node.
func (b *Balancer) happened(e announce.Event) {
	kind, reason, note := b.describe(e)
	b.log.Info(note, zap.String("reason", reason))
	b.told.Lock()
	refs := b.by[e.Address]
	b.told.Unlock()
	for _, object := range refs {
		b.events.put(event{object, kind, reason, note})
	}
}

func (b *Balancer) describe(e announce.Event) (kind, reason, note string) {
	switch e.Kind {
	case announce.Announced:
		return corev1.EventTypeNormal, "Announced", fmt.Sprintf("Node %s answers for %s.", b.cfg.Node, e.Address)
	case announce.Withdrawn:
		return corev1.EventTypeNormal, "Withdrawn", fmt.Sprintf("Node %s does not answer for %s any more.", b.cfg.Node, e.Address)
	case announce.Fenced:
		return corev1.EventTypeWarning, "Fenced", fmt.Sprintf("Node %s does not answer for %s for the moment: neither the API server nor enough of the other nodes confirm that it still may.", b.cfg.Node, e.Address)
	case announce.NoInterface:
		return corev1.EventTypeWarning, "NoInterface", b.noInterface(e)
	}
	c := e.Conflict
	what := "it is not announced until it is free; take it away from there, or out of the pool"
	if c.Announcing {
		what = "it is announced all the same, and clients may end up there; take it away from there"
	}
	return corev1.EventTypeWarning, "AddressConflict", fmt.Sprintf("Machine %s on the LAN of %s of node %s uses %s: %s.", c.MAC, c.Interface, b.cfg.Node, e.Address, what)
}

func (b *Balancer) noInterface(e announce.Event) string {
	b.told.Lock()
	wanted := slices.Concat(b.cfg.Interfaces, b.desired.Claims[e.Address].Interfaces)
	b.told.Unlock()
	has, fix := "has none that leads to a LAN", ""
	if len(e.Interfaces) > 0 {
		has, fix = "has "+strings.Join(e.Interfaces, ", "), "; correct interfaces of the L2Advertisement, or --announce-interface"
	}
	of := ""
	if len(wanted) > 0 {
		of = " that is among " + strings.Join(wanted, ", ")
	}
	return fmt.Sprintf("Nobody answers for %s: node %s, whose it is, has no interface%s; it %s%s.", e.Address, b.cfg.Node, of, has, fix)
}

// HealthPortTaken tells people that the healthCheckNodePort of a Service is not served here, by the reason
// that kube-proxy gives.
func (b *Balancer) HealthPortTaken(object corev1.ObjectReference, port uint16, err error) {
	b.events.put(event{
		object, corev1.EventTypeWarning, "FailedToStartServiceHealthcheck",
		fmt.Sprintf("spec.healthCheckNodePort: %d cannot be served on node %s and is tried again: %v; free the port, or give the Service another.", port, b.cfg.Node, err),
	})
}

// EndpointSkipped tells people that an endpoint of a Service is not used on this node because it
// fails, or that it is again.
func (b *Balancer) EndpointSkipped(object corev1.ObjectReference, skipped bool, note string) {
	kind, reason := corev1.EventTypeNormal, "EndpointReturned"
	if skipped {
		kind, reason = corev1.EventTypeWarning, "EndpointSkipped"
	}
	b.events.put(event{object, kind, reason, note})
}
