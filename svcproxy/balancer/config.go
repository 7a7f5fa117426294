// Package balancer gives the LoadBalancer Services of a cluster their addresses, and has the
// nodes announce them: it watches what that depends on, and drives svcproxy/addresses (in one
// process of the cluster) and svcproxy/announce (in every one). README.md has the picture.
package balancer

import (
	"errors"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/addresses"
	"github.com/portico-ingress/portico/svcproxy/announce"
)

// Names of the objects in Config.Namespace.
const (
	// LeaderLease says which process gives out addresses.
	LeaderLease = "portico-svcproxy-leader"
	// AnnounceLease says which node answers for which address.
	AnnounceLease = "portico-announce"
	// KeySecret has the key of the heartbeats between nodes, under its key "key".
	KeySecret = "portico-announce"
	// PoolsConfigMap has pools, for clusters without the resources of MetalLB.
	PoolsConfigMap = "portico-pools"
	// HeartbeatPort is the UDP port of the nodes' heartbeats. MetalLB's is another one (7946),
	// so that both can run for the time of a change.
	HeartbeatPort = 7947
)

// Config is how a Balancer works.
type Config struct {
	Client kubernetes.Interface
	// Dynamic reads the resources of MetalLB.
	Dynamic dynamic.Interface
	// Node is the name of this node.
	Node string
	// Namespace has the Leases, the Secret and the ConfigMap.
	Namespace string
	// Pools are ranges of addresses that any Service may have.
	Pools []string
	// PoolNamespaces are those whose IPAddressPools and L2Advertisements count; Namespace and MetalLB's own if there are none.
	PoolNamespaces []string
	// Class is the loadBalancerClass that is served; addresses.Class if empty. OnlyClass leaves alone Services without a class.
	Class     string
	OnlyClass bool
	// Interfaces are patterns of those to announce on; none are all that lead to a LAN.
	Interfaces []string
	// Problems are those of Services that the data plane does not serve as they ask, for
	// Events. It may be nil.
	Problems func() []manifests.Problem
	// Handover keeps connections alive when an address moves. It may be nil.
	Handover announce.Handover
	Log      *zap.Logger
}

// metallbNamespace is where MetalLB's manifests and its documentation have everything.
const metallbNamespace = "metallb-system"

func (c *Config) setDefaults() {
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Class == "" {
		c.Class = addresses.Class
	}
	if len(c.PoolNamespaces) == 0 {
		c.PoolNamespaces = []string{c.Namespace, metallbNamespace}
	}
}

// serves says whether Portico gives a Service its addresses.
func (c *Config) serves(svc *corev1.Service) bool {
	a := addresses.Allocator{Class: c.Class, Default: !c.OnlyClass}
	return a.Serves(svc)
}

// Validate says what is missing.
func (c *Config) Validate() error {
	switch {
	case c.Client == nil:
		return errors.New("balancer: Config.Client is not set")
	case c.Dynamic == nil:
		return errors.New("balancer: Config.Dynamic is not set")
	case c.Node == "":
		return errors.New("balancer: Config.Node is not set")
	case c.Namespace == "":
		return errors.New("balancer: Config.Namespace is not set")
	}
	return nil
}
