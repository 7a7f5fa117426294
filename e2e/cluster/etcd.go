package cluster

// etcdName is the component's name.
const etcdName = "etcd"

// EtcdURL is where etcd answers, for programs on the control host.
const EtcdURL = "http://127.0.0.1:2379"

// etcd is the cluster's store. It never waits for the disk: what it holds is
// thrown away with the cluster.
func (c *Cluster) etcd() component {
	const clients, peers = EtcdURL, "http://127.0.0.1:2380"
	return component{
		name: etcdName,
		argv: []string{
			c.set.Path("etcd"),
			"--name=default",
			"--data-dir=" + c.cfg.file("etcd"),
			"--listen-client-urls=" + clients,
			"--advertise-client-urls=" + clients,
			"--listen-peer-urls=" + peers,
			"--initial-advertise-peer-urls=" + peers,
			"--initial-cluster=default=" + peers,
			"--unsafe-no-fsync",
			"--log-level=warn",
		},
		where: place{net: c.cfg.netns("control")},
		ready: healthy(c.cfg.netns("control"), clients+"/health"),
	}
}
