package cluster

import (
	"encoding/json"
	"fmt"
	"os"
)

// kubelet runs the node's Pods.
func (n *node) kubelet() component {
	return component{
		name: n.name + "/kubelet",
		argv: []string{
			n.set.Path("kubelet"),
			"--config=" + n.file("kubelet.json"),
			"--kubeconfig=" + n.cfg.kubeconfig(n.name),
			"--cert-dir=" + n.file("kubelet", "pki"),
			"--hostname-override=" + n.name,
			"--node-ip=" + join(n.cfg.addrs(n.cfg.nodeHost(n.number))),
			fmt.Sprintf("--node-labels=topology.kubernetes.io/zone=zone%d", n.number),
			"--v=1",
		},
		where: n.place(),
		ready: healthy(n.cfg.netns(n.name), "http://127.0.0.1:10248/healthz"),
	}
}

func (n *node) writeKubelet() error {
	type object = map[string]any
	b, err := json.MarshalIndent(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": object{
			"anonymous": object{"enabled": false},
			"webhook":   object{"enabled": true},
			"x509":      object{"clientCAFile": n.cfg.pkiFile("ca.crt")},
		},
		"authorization":            object{"mode": "Webhook"},
		"tlsCertFile":              n.cfg.pkiFile(n.name + ".crt"),
		"tlsPrivateKeyFile":        n.cfg.pkiFile(n.name + ".key"),
		"containerRuntimeEndpoint": "unix://" + n.containerdSocket(),
		"clusterDNS":               []string{dnsService4},
		"clusterDomain":            "cluster.local",
		"resolvConf":               n.file("resolv.conf"),
		"volumePluginDir":          n.file("kubelet", "volume-plugins"),
		"serializeImagePulls":      false,
		// The node shares the machine's control groups, whatever their version,
		// and takes none of its resources for itself.
		"failCgroupV1":                  false,
		"cgroupDriver":                  "cgroupfs",
		"cgroupsPerQOS":                 false,
		"enforceNodeAllocatable":        []string{},
		"failSwapOn":                    false,
		"localStorageCapacityIsolation": false,
		"makeIPTablesUtilChains":        false,
		"oomScoreAdj":                   0,
		// Images come from us alone, so they must never be cleared away; nor
		// may a full disk of the machine's drive the Pods off.
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		"evictionHard": object{
			"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
			"imagefs.available": "0%", "imagefs.inodesFree": "0%",
		},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("configure kubelet: %w", err)
	}
	if err := os.WriteFile(n.file("kubelet.json"), b, 0o644); err != nil {
		return fmt.Errorf("write kubelet.json: %w", err)
	}
	// For Pods that do not want the cluster's DNS: a test may run a server on
	// the client host.
	resolv := "nameserver " + n.cfg.addrs(clientHost)[0].String() + "\n"
	if err := os.WriteFile(n.file("resolv.conf"), []byte(resolv), 0o644); err != nil {
		return fmt.Errorf("write resolv.conf: %w", err)
	}
	return nil
}
