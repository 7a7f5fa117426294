package cluster

import (
	"encoding/json"
	"fmt"
	"os"
)

// kubeProxy makes Services reachable on the node.
func (n *node) kubeProxy() component {
	return component{
		name:  n.name + "/kube-proxy",
		argv:  []string{n.set.Path("kube-proxy"), "--config=" + n.file("kube-proxy.json"), "--v=1"},
		where: n.place(),
		ready: healthy(n.cfg.netns(n.name), "http://127.0.0.1:10256/livez"),
	}
}

// KubeProxy configures kube-proxy for a node and is the command that runs it there, for those
// who start it themselves.
func (c *Cluster) KubeProxy(name string) (argv []string, err error) {
	n, err := c.node(name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(n.file(), 0o755); err != nil {
		return nil, fmt.Errorf("make folder of %s: %w", n.name, err)
	}
	return n.kubeProxy().argv, n.writeKubeProxy()
}

func (n *node) writeKubeProxy() error {
	type object = map[string]any
	b, err := json.MarshalIndent(object{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "nftables",
		"clientConnection":   object{"kubeconfig": n.cfg.kubeconfig("kube-proxy")},
		"hostnameOverride":   n.name,
		"clusterCIDR":        n.cfg.families(podCIDR4, podCIDR6),
		"healthzBindAddress": "0.0.0.0:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		"oomScoreAdj":        0,
		// The size of the connection table is the machine's to set.
		"conntrack": object{"maxPerCore": 0, "min": 0},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("configure kube-proxy: %w", err)
	}
	if err := os.WriteFile(n.file("kube-proxy.json"), b, 0o644); err != nil {
		return fmt.Errorf("write kube-proxy.json: %w", err)
	}
	return nil
}
