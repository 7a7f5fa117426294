package cluster

// Names of the components that turn objects into other objects.
const (
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
)

func (c *Cluster) controllerManager() component {
	cfg := &c.cfg
	return component{
		name: ControllerManager,
		argv: []string{
			c.set.Path(ControllerManager),
			"--kubeconfig=" + cfg.kubeconfig(ControllerManager),
			"--bind-address=127.0.0.1",
			"--root-ca-file=" + cfg.pkiFile("ca.crt"),
			"--service-account-private-key-file=" + cfg.pkiFile("service-account.key"),
			"--use-service-account-credentials=true",
			// Pod subnets are laid with the network, not handed out later.
			"--controllers=*,-node-ipam-controller",
			"--allocate-node-cidrs=false",
			// It makes this folder, which would else be one of the machine's.
			"--flex-volume-plugin-dir=" + cfg.file("run", "volume-plugins"),
			// There is only one, and waiting for a lease takes seconds.
			"--leader-elect=false",
			"--node-monitor-period=1s",
			// The usual brakes make its start alone take four seconds.
			"--kube-api-qps=200",
			"--kube-api-burst=400",
			"--v=1",
		},
		where: place{net: cfg.netns("control")},
		ready: healthy(cfg.netns("control"), "https://127.0.0.1:10257/healthz"),
	}
}

func (c *Cluster) scheduler() component {
	cfg := &c.cfg
	return component{
		name: Scheduler,
		argv: []string{
			c.set.Path(Scheduler),
			"--kubeconfig=" + cfg.kubeconfig(Scheduler),
			"--bind-address=127.0.0.1",
			"--leader-elect=false",
			"--kube-api-qps=200",
			"--kube-api-burst=400",
			"--v=1",
		},
		where: place{net: cfg.netns("control")},
		ready: healthy(cfg.netns("control"), "https://127.0.0.1:10259/healthz"),
	}
}
