// Package ingress compiles Kubernetes objects into routes and certificates.
//
// Pure passes decide (which class, which hosts and paths, which port, which endpoints, which
// certificate, which status) and say why; the Controller's one goroutine owns all state and
// acts. README.md beside this file has the picture.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// Config says what a Controller reads, what it serves and where it puts the result.
type Config struct {
	// Store is where objects come from, and Want is told which Secrets, ConfigMaps and
	// Services outside the watched namespaces are needed: the Source's Want.
	Store *manifests.Store
	Want  func([]manifests.Ref)

	// Backends and Stats outlive tables. The Controller is their owner.
	Backends *router.Backends
	Stats    *router.StatsSet
	// SwapTable makes a Table live, and Certificates a certificate set.
	SwapTable    func(*router.Table)
	Certificates *certs.Live

	// ControllerClass is the spec.controller of the IngressClasses that are ours.
	ControllerClass string
	// IngressClass is the value of the legacy annotation kubernetes.io/ingress.class that
	// is ours.
	IngressClass string
	// WatchWithoutClass serves Ingresses that name no class, too.
	WatchWithoutClass bool
	// ImplicitClass takes the IngressClass named IngressClass to exist and to be ours if
	// there is no object of that name: a folder of manifests need not have one.
	ImplicitClass bool

	// DefaultCertificate is the Secret for hosts without a certificate; without it a
	// self-signed one is made.
	DefaultCertificate types.NamespacedName
	// DefaultBackend is the Service for requests that no Ingress answers. Its first port
	// is used.
	DefaultBackend types.NamespacedName
	// ConfigMap has settings for all Ingresses. No key is known yet.
	ConfigMap types.NamespacedName
	// AllowLoopbackExternal lets ExternalName Services lead to loopback and link-local
	// addresses.
	AllowLoopbackExternal bool
	// Lookup resolves ExternalNames; nil is the system resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	// Client writes status, Events and the Lease; nil writes nothing.
	Client kubernetes.Interface
	// UpdateStatus writes status.loadBalancer of Ingresses, from the addresses of
	// PublishService, or PublishAddresses.
	UpdateStatus     bool
	PublishService   types.NamespacedName
	PublishAddresses []string
	// ElectionID is the name of the Lease, in Namespace, that decides who of several
	// replicas writes; Identity is this one's name, unique among them.
	ElectionID, Namespace, Identity string

	// TicketSecret is the name of the Secret, in Namespace, through which replicas share the
	// keys of TLS session tickets. Without a Client the keys stay in this process; without a
	// name they are crypto/tls's own.
	TicketSecret string

	// Observe may be nil.
	Observe *Observer
	// Log may be nil.
	Log *zap.Logger
}

// ChangeKind says how far a change reached.
type ChangeKind string

// The two speeds of a change.
const (
	ChangeEndpoints ChangeKind = "endpoints"
	ChangeStructure ChangeKind = "structure"
)

// Observer is told what a Controller does, for metrics. Its functions may be nil. They are
// called from the Controller's goroutine and must not block.
type Observer struct {
	// ConfigChanged is called when a change is live. Propagation is how long ago it
	// reached the Store.
	ConfigChanged func(kind ChangeKind, duration, propagation time.Duration)
	// StatusWritten is called after each try to write the status of an Ingress.
	StatusWritten func(err error)
	// Leader is called when this process begins or ends to be the leader.
	Leader func(leading bool)
}

// Validate reports what is missing, in one line.
func (c *Config) Validate() error {
	switch {
	case c.Store == nil:
		return errors.New("ingress: Config.Store is not set")
	case c.Backends == nil:
		return errors.New("ingress: Config.Backends is not set")
	case c.Stats == nil:
		return errors.New("ingress: Config.Stats is not set")
	case c.SwapTable == nil:
		return errors.New("ingress: Config.SwapTable is not set")
	case c.Certificates == nil:
		return errors.New("ingress: Config.Certificates is not set")
	case c.ControllerClass == "":
		return errors.New("ingress: Config.ControllerClass is not set")
	case c.IngressClass == "":
		return errors.New("ingress: Config.IngressClass is not set")
	}
	if c.writes() && (c.ElectionID == "" || c.Namespace == "" || c.Identity == "") {
		return errors.New("ingress: Config.UpdateStatus needs ElectionID, Namespace and Identity")
	}
	if c.PublishService.Name != "" && len(c.PublishAddresses) > 0 {
		return fmt.Errorf("ingress: Config has both PublishService %s and PublishAddresses", c.PublishService)
	}
	return nil
}

// writes tells whether there is a status to write.
func (c *Config) writes() bool { return c.Client != nil && c.UpdateStatus }

func (c *Config) log() *zap.Logger {
	if c.Log == nil {
		return zap.NewNop()
	}
	return c.Log
}
