// Package cluster boots a real Kubernetes cluster on one machine: the real
// etcd, control plane, kubelet, kube-proxy and containerd, without images or
// programs from elsewhere and without anything in the machine's own network.
//
// Every host of the cluster is a network namespace on one Ethernet segment,
// which is a bridge in a namespace of its own:
//
//	             switch (bridge br0)
//	   ┌────────────┬─────┴──────┬─────────────┐
//	control       node1        node2         client
//	172.30.0.10   172.30.0.11  172.30.0.12   172.30.0.100
//	etcd, API     kubelet, containerd,       outside of the cluster:
//	server,       kube-proxy, Pods           curl and load generators
//	managers      10.244.1.0/24 ...          run here
//
// A node has mount, PID, UTS and IPC namespaces as well. Its first process
// holds them; when that one is killed the kernel ends every process of the
// node, containers included, and every mount goes with them. That is how a node
// loses its power in a test, and how [Cluster.Down] leaves nothing behind.
package cluster
