package cluster

import "time"

// APIServer is the component's name.
const APIServer = "kube-apiserver"

// apiServer is the API server, with the authorization and admission of a real
// cluster: what runs in Pods gets by with its own ServiceAccount.
func (c *Cluster) apiServer() component {
	cfg := &c.cfg
	return component{
		name: APIServer,
		argv: []string{
			c.set.Path(APIServer),
			"--etcd-servers=http://127.0.0.1:2379",
			"--secure-port=6443",
			"--advertise-address=" + cfg.addrs(controlHost)[0].String(),
			"--tls-cert-file=" + cfg.pkiFile("apiserver.crt"),
			"--tls-private-key-file=" + cfg.pkiFile("apiserver.key"),
			"--client-ca-file=" + cfg.pkiFile("ca.crt"),
			"--kubelet-client-certificate=" + cfg.pkiFile("apiserver.crt"),
			"--kubelet-client-key=" + cfg.pkiFile("apiserver.key"),
			"--kubelet-certificate-authority=" + cfg.pkiFile("ca.crt"),
			"--kubelet-preferred-address-types=InternalIP",
			"--cert-dir=" + cfg.file("run"),
			"--service-cluster-ip-range=" + cfg.families(serviceCIDR4, serviceCIDR6),
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + cfg.pkiFile("service-account.key"),
			"--service-account-signing-key-file=" + cfg.pkiFile("service-account.key"),
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
			"--v=1",
		},
		where: place{net: cfg.netns("control")},
		// It takes no new connections from the first moment on, but waits a
		// minute for watches to end, which they do not.
		grace: 2 * time.Second,
		// The page is open to everybody, as in any cluster.
		ready: healthy(cfg.netns("control"), "https://127.0.0.1:6443/readyz"),
	}
}
