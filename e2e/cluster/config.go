package cluster

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/portico-ingress/portico/e2e/binaries"
)

// Config says what cluster to boot. The zero value is a dual-stack cluster of
// two nodes with kube-proxy.
type Config struct {
	// Name tells several clusters on one machine apart. Empty: portico.
	Name string
	// Dir is where the cluster keeps its state. Empty: a folder of the
	// cluster's name in /var/lib/portico-e2e. It must not lie under /run or
	// /var/log, which a node has of its own.
	Dir string
	// Nodes is how many nodes there are, 9 at most. Zero: 2.
	Nodes int
	// IPv4Only leaves IPv6 out.
	IPv4Only bool
	// WithoutKubeProxy leaves Services to something else. Until that runs, Pods
	// cannot reach the API server by its Service.
	WithoutKubeProxy bool
	// Bare leaves out all that runs Pods: there are etcd, the API server, and hosts on
	// a network, of which the API server does not know.
	Bare bool
	// Binaries says where the cluster's programs are built and kept.
	Binaries binaries.Options
	// Log receives what Up and Down are doing. Nil: nothing is written.
	Log io.Writer
}

// Fixed addresses. They can be the same in every cluster, as no two share a network.
const (
	hostPrefix4 = "172.30.0."
	hostPrefix6 = "fd00:30::"
	hostBits4   = 24
	hostBits6   = 64

	podCIDR4     = "10.244.0.0/16"
	podCIDR6     = "fd00:244::/48"
	serviceCIDR4 = "10.96.0.0/16"
	serviceCIDR6 = "fd00:96::/112"

	// apiService is the kubernetes Service, the first address of the range.
	apiService4 = "10.96.0.1"
	apiService6 = "fd00:96::1"
	// dnsService is where Pods look for DNS, if anything answers there.
	dnsService4 = "10.96.0.10"

	controlHost = 10
	clientHost  = 100
)

// LoadBalancerCIDR4 and LoadBalancerCIDR6 are addresses on the cluster's
// Ethernet segment that nobody has: a load balancer may give them to Services
// and announce them.
const (
	LoadBalancerCIDR4 = "172.30.0.192/26"
	LoadBalancerCIDR6 = "fd00:30::1:0/112"
)

var nameRE = regexp.MustCompile(`^[a-z][a-z0-9]{0,11}$`)

// Validate fills in defaults and says what is wrong.
func (c *Config) Validate() error {
	if c.Name == "" {
		c.Name = "portico"
	}
	if !nameRE.MatchString(c.Name) {
		return fmt.Errorf("cluster name %q: want up to 12 small letters and digits", c.Name)
	}
	if c.Nodes == 0 {
		c.Nodes = 2
	}
	if c.Nodes < 1 || c.Nodes > 9 {
		return fmt.Errorf("%d nodes: want 1 to 9", c.Nodes)
	}
	if c.Dir == "" {
		c.Dir = filepath.Join("/var/lib/portico-e2e", c.Name)
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return fmt.Errorf("cluster folder: %w", err)
	}
	c.Dir = dir
	for _, hidden := range []string{"/run/", "/var/run/", "/var/log/", "/var/lib/kubelet/", "/var/lib/cni/"} {
		if strings.HasPrefix(c.Dir+"/", hidden) {
			return fmt.Errorf("cluster folder %s: nodes cannot see what lies under %s", c.Dir, hidden)
		}
	}
	if len(c.Dir) > 60 {
		return fmt.Errorf("cluster folder %s: too long for the sockets in it", c.Dir)
	}
	if c.Log == nil {
		c.Log = io.Discard
	}
	c.Binaries.Log = c.Log
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: namespaces, mounts and containers are its hosts")
	}
	return nil
}

// node is the n-th node's name; nodes count from 1.
func (c *Config) node(n int) string { return fmt.Sprintf("node%d", n) }

// addrs are the addresses of the host numbered n on the Ethernet segment.
func (c *Config) addrs(n int) []netip.Addr {
	a := []netip.Addr{netip.MustParseAddr(fmt.Sprintf("%s%d", hostPrefix4, n))}
	if !c.IPv4Only {
		a = append(a, netip.MustParseAddr(fmt.Sprintf("%s%d", hostPrefix6, n)))
	}
	return a
}

// podCIDRs are the n-th node's Pod subnets.
func (c *Config) podCIDRs(n int) []netip.Prefix {
	p := []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", n))}
	if !c.IPv4Only {
		p = append(p, netip.MustParsePrefix(fmt.Sprintf("fd00:244:0:%d::/64", n)))
	}
	return p
}

// families joins one value for each IP family the cluster has.
func (c *Config) families(v4, v6 string) string {
	if c.IPv4Only {
		return v4
	}
	return v4 + "," + v6
}

func (c *Config) file(elem ...string) string {
	return filepath.Join(append([]string{c.Dir}, elem...)...)
}

// apiURL is how everything on the segment reaches the API server.
func (c *Config) apiURL() string {
	return fmt.Sprintf("https://%s:6443", c.addrs(controlHost)[0])
}

func join[T fmt.Stringer](list []T) string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = v.String()
	}
	return strings.Join(s, ",")
}
