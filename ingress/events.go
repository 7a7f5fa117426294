package ingress

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/portico-ingress/portico/manifests"
)

const (
	// Events are sent at this rate at most. What waits for its turn and is over by then is
	// never sent, so nothing piles up.
	eventsPerSecond, eventsBurst = 10, 50
	// eventRetry is how long to leave the API server alone after it failed.
	eventRetry = 5 * time.Second
	// maxNote is what the API server takes.
	maxNote = 1024
)

// eventSender makes each new problem a Kubernetes Event on its object, once. It writes
// events.k8s.io itself: client-go's recorder keeps goroutines of its own that outlive their
// context, and queues what is long over.
type eventSender struct {
	cfg    *Config
	log    *zap.Logger
	limits flowcontrol.RateLimiter
	poke   chan struct{}

	mu      sync.Mutex
	enabled bool
	waiting []event
	sent    map[manifests.Problem]struct{}
}

// event is a problem and the object it is about.
type event struct {
	problem
	regarding corev1.ObjectReference
}

func newEventSender(cfg *Config) *eventSender {
	return &eventSender{
		cfg: cfg, log: cfg.log(), limits: flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventsBurst),
		poke: make(chan struct{}, 1), sent: map[manifests.Problem]struct{}{},
	}
}

// enable says whether this process is the one to send.
func (s *eventSender) enable(enabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enabled = enabled
	s.wake()
}

// update sets what is wrong at the moment. It does not block.
func (s *eventSender) update(all []problem, objects *manifests.Objects) {
	if s.cfg.Client == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = s.waiting[:0:0]
	still := make(map[manifests.Problem]struct{}, len(s.sent))
	for _, p := range all {
		if _, done := s.sent[p.Problem]; done {
			still[p.Problem] = struct{}{}
			continue
		}
		if ref, ok := regarding(p.Object, objects); ok {
			s.waiting = append(s.waiting, event{p, ref})
		}
	}
	s.sent = still // a problem that is over and comes back is a new one
	s.wake()
}

func (s *eventSender) wake() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// run sends until ctx ends.
func (s *eventSender) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.poke:
		}
		for e, ok := s.next(); ok; e, ok = s.next() {
			if s.limits.Wait(ctx) != nil {
				return
			}
			if err := s.send(ctx, e); err != nil && !s.rest(ctx, err) {
				return
			}
		}
	}
}

// next takes out the first event that waits.
func (s *eventSender) next() (e event, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.enabled || len(s.waiting) == 0 {
		return event{}, false
	}
	e, s.waiting = s.waiting[0], s.waiting[1:]
	s.sent[e.Problem] = struct{}{}
	return e, true
}

// rest waits after a failure; false means that ctx ended. The Event is lost, the problem
// stays where people look for it: in the log and in the admin API.
func (s *eventSender) rest(ctx context.Context, err error) bool {
	s.log.Debug("cannot send an Event", zap.Error(err))
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
		return true
	}
	timer := time.NewTimer(eventRetry)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func (s *eventSender) send(ctx context.Context, e event) error {
	namespace := e.regarding.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where Events on cluster-scoped objects go
	}
	note := e.Text
	if e.Field != "" {
		note = e.Field + ": " + note
	}
	_, err := s.cfg.Client.EventsV1().Events(namespace).Create(ctx, &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: namespace, GenerateName: "portico-"},
		EventTime:           metav1.NowMicro(),
		ReportingController: s.cfg.ControllerClass,
		ReportingInstance:   orWord(s.cfg.Identity, "portico"),
		Type:                corev1.EventTypeWarning,
		Reason:              e.reason,
		Action:              "Compile",
		Regarding:           e.regarding,
		Note:                shorten(note, maxNote),
	}, metav1.CreateOptions{})
	return err
}

func orWord(word, otherwise string) string {
	if word == "" {
		return otherwise
	}
	return word
}

// shorten cuts text to n bytes, at a rune.
func shorten(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const dots = "..."
	cut := n - len(dots)
	for cut > 0 && text[cut]&0xC0 == 0x80 {
		cut--
	}
	return text[:cut] + dots
}

// regarding is the object that an Event is about, if it exists.
func regarding(ref manifests.Ref, objects *manifests.Objects) (corev1.ObjectReference, bool) {
	o := corev1.ObjectReference{Kind: ref.Kind, APIVersion: "v1", Namespace: ref.Namespace, Name: ref.Name}
	var uid types.UID
	switch ref.Kind {
	case manifests.KindIngress:
		o.APIVersion = "networking.k8s.io/v1"
		uid = uidOf(objects.Ingress(ref.Namespace, ref.Name))
	case manifests.KindService:
		uid = uidOf(objects.Service(ref.Namespace, ref.Name))
	case manifests.KindSecret:
		uid = uidOf(objects.Secret(ref.Namespace, ref.Name))
	case manifests.KindConfigMap:
		uid = uidOf(objects.ConfigMap(ref.Namespace, ref.Name))
	}
	o.UID = uid
	return o, uid != ""
}

// uidOf is empty for an object that does not exist, or does not come from a cluster.
func uidOf[T any, P interface {
	*T
	metav1.Object
}](object P) types.UID {
	if object == nil {
		return ""
	}
	return object.GetUID()
}
