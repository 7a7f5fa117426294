package addresses

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-ingress/portico/manifests"
)

// Class is the loadBalancerClass of Services that are Portico's by name.
const Class = "portico.dev/l2"

// Config is how a Controller works.
type Config struct {
	Client kubernetes.Interface
	// Identity of this process, for Events.
	Identity string
	// Class is the loadBalancerClass that is served; Class if empty.
	Class string
	// OnlyClass leaves alone Services that name no class.
	OnlyClass bool
	Log       *zap.Logger
}

// Validate says what is missing.
func (c *Config) Validate() error {
	if c.Client == nil {
		return errors.New("addresses: Client: there is none")
	}
	return nil
}

// State is what a Controller decides from: everything that there is at one time.
type State struct {
	Services []*corev1.Service
	// NamespaceLabels by namespace.
	NamespaceLabels map[string]map[string]string
	// Pools as NewPools made them, and what it said.
	Pools        []*Pool
	PoolProblems []manifests.Problem
	// Unserved are problems of Services that others found, and that nobody else tells.
	Unserved []manifests.Problem
	// UIDs are those of objects in problems that are not in Services: without it, kubectl does not
	// show an Event with its object.
	UIDs map[manifests.Ref]types.UID
}

// Controller gives Services their addresses. Only the leader may have one: it believes that
// nobody else gives addresses out. It is for one goroutine.
type Controller struct {
	cfg       Config
	log       *zap.Logger
	write     writer
	allocator *Allocator
	known     map[types.NamespacedName]bool
	told      map[manifests.Problem]bool
}

// NewController gives a Controller that knows nothing yet. A new leader makes a new one.
func NewController(cfg Config) (*Controller, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Class == "" {
		cfg.Class = Class
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Controller{
		cfg: cfg, log: cfg.Log, write: writer{cfg.Client, cfg.Identity},
		allocator: &Allocator{Class: cfg.Class, Default: !cfg.OnlyClass},
		known:     map[types.NamespacedName]bool{}, told: map[manifests.Problem]bool{},
	}, nil
}

// Sync makes the API server agree with what is decided about a State. What could not be
// written is in the error, and is written by the next Sync; a conflict is no error, because
// the State that comes with it is on its way.
func (c *Controller) Sync(ctx context.Context, s State) ([]manifests.Problem, error) {
	c.allocator.SetPools(s.Pools)
	c.begin(s)
	c.forget(s.Services)
	problems := append([]manifests.Problem(nil), s.PoolProblems...)
	var errs []error
	for _, svc := range s.Services {
		d, err := c.serve(ctx, svc, s.NamespaceLabels[svc.Namespace])
		problems = append(problems, d.Problems...)
		if err != nil {
			errs = append(errs, err)
		}
	}
	problems = append(problems, s.Unserved...)
	if err := c.tell(ctx, problems, s); err != nil {
		errs = append(errs, err)
	}
	return problems, errors.Join(errs...)
}

// begin takes over what those Services have that were not looked at before.
func (c *Controller) begin(s State) {
	first := slices.DeleteFunc(slices.Clone(s.Services), func(svc *corev1.Service) bool { return c.known[nameOf(svc)] })
	c.allocator.Begin(first, func(namespace string) map[string]string { return s.NamespaceLabels[namespace] })
}

// serve decides about one Service, and keeps from others what may be in its status then.
func (c *Controller) serve(ctx context.Context, svc *corev1.Service, namespaceLabels map[string]string) (Decision, error) {
	name := nameOf(svc)
	had := c.allocator.services[name]
	if c.allocator.leaves(svc) {
		c.allocator.leave(svc)
		return Decision{}, nil
	}
	d := c.allocator.Allocate(svc, namespaceLabels)
	settled, err := c.settle(ctx, svc, d)
	switch {
	case settled:
		c.allocator.arrived(name)
		if d.deferred {
			return c.serve(ctx, svc, namespaceLabels)
		}
	case isFinal(err) && !slices.Equal(d.Addresses, had.Addresses): // what was refused is in no status
		c.allocator.restore(name, had)
	default:
		c.allocator.linger(name, had)
	}
	return d, err
}

// forget gives back the addresses of Services that are no more.
func (c *Controller) forget(services []*corev1.Service) {
	still := make(map[types.NamespacedName]bool, len(services))
	for _, svc := range services {
		still[nameOf(svc)] = true
	}
	for name := range c.known {
		if !still[name] {
			c.allocator.Release(name)
		}
	}
	c.known = still
}

// settle writes what was decided, and says whether the API server has it all.
func (c *Controller) settle(ctx context.Context, svc *corev1.Service, d Decision) (bool, error) {
	ours := c.allocator.Serves(svc)
	if agrees(svc, d, ours) {
		return true, nil
	}
	before := svc.Status
	svc = svc.DeepCopy() // of others, who only read it
	err := c.write.apply(ctx, svc, d, ours)
	switch {
	case apierrors.IsConflict(err):
		return false, nil
	case err != nil:
		return false, err
	}
	if len(d.Addresses) > len(before.LoadBalancer.Ingress) {
		about := corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID}
		if err := c.write.event(ctx, about, corev1.EventTypeNormal, "AddressAssigned", "Address "+join(d.Addresses)+" of pool "+d.Pool+"."); err != nil {
			c.log.Warn("Event not written", zap.Error(err))
		}
	}
	return true, nil
}

// tell makes each new problem an Event on its object, once for as long as it lasts. The error is
// about those that could not be written, which the next Sync writes; one that never can be counts as told.
func (c *Controller) tell(ctx context.Context, problems []manifests.Problem, s State) (failed error) {
	still := map[manifests.Problem]bool{}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, p := range problems {
		still[p] = true
		if c.told[p] {
			continue
		}
		err := c.write.event(ctx, reference(p.Object, s), corev1.EventTypeWarning, c.eventReason(p, s), noted(p))
		switch {
		case err == nil:
		case isFinal(err):
			c.log.Warn("Event not written", zap.Stringer("problem", p), zap.Error(err))
		default:
			failed = fmt.Errorf("event about %s not written: %w", p, err)
			delete(still, p)
		}
	}
	c.told = still
	return failed
}

// isFinal says whether the API server will not take something however often it is asked: it may not be
// written, or its namespace is ending (which is forbidden, too) or gone, or it is not as the API server wants it.
func isFinal(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsInvalid(err)
}

func (c *Controller) eventReason(p manifests.Problem, s State) string {
	switch {
	case slices.Contains(s.Unserved, p):
		return "NotServed"
	case p.Object.Kind == KindL2Advertisement:
		return "BadL2Advertisement"
	case p.Object.Kind == KindPool, p.Object.Kind == manifests.KindConfigMap:
		return "BadPool"
	}
	has := c.allocator.services[types.NamespacedName{Namespace: p.Object.Namespace, Name: p.Object.Name}]
	return reasonOf(p, len(has.Addresses) > 0)
}

func reference(ref manifests.Ref, s State) corev1.ObjectReference {
	about := corev1.ObjectReference{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name, APIVersion: "v1", UID: s.UIDs[ref]}
	if ref.Kind == KindPool || ref.Kind == KindL2Advertisement {
		about.APIVersion = "metallb.io/v1beta1"
		return about
	}
	for _, svc := range s.Services {
		if svc.Namespace == ref.Namespace && svc.Name == ref.Name {
			about.UID = svc.UID
		}
	}
	return about
}
