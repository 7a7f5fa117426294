package cluster

import (
	"strings"
	"testing"
)

func TestConfigDefaults(t *testing.T) {
	var c Config
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.Name != "portico" || c.Nodes != 2 || c.Dir != "/var/lib/portico-e2e/portico" {
		t.Errorf("%+v", c)
	}
	if got := join(c.addrs(c.nodeHost(2))); got != "172.30.0.12,fd00:30::12" {
		t.Errorf("second node is %s", got)
	}
	if got := join(c.podCIDRs(1)); got != "10.244.1.0/24,fd00:244:0:1::/64" {
		t.Errorf("Pods of the first node are %s", got)
	}
	c.IPv4Only = true
	if got := join(c.addrs(c.nodeHost(2))); got != "172.30.0.12" {
		t.Errorf("second node is %s without IPv6", got)
	}
}

func TestConfigRefuses(t *testing.T) {
	for want, c := range map[string]Config{
		"cluster name":      {Name: "No!"},
		"10 nodes":          {Nodes: 10},
		"nodes cannot see":  {Dir: "/run/x"},
		"too long":          {Dir: "/" + strings.Repeat("x", 80)},
		"cluster name \"a-": {Name: "a-b"},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
