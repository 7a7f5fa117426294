package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"

	"github.com/portico-ingress/portico/e2e/cluster"
)

const (
	namespace   = "default"
	probe       = "probe" // the Service whose endpoint is switched
	servicePort = 80
	podPort     = 8080
	writers     = 24 // at once
)

// objects writes what the candidates read.
type objects struct {
	client kubernetes.Interface
	etcd   *etcd
	// named: endpoints name their Pods, nodes and zones.
	named bool
	// services is how many there are besides the probe, and endpoints how many each has.
	services, endpoints int
}

func newObjects(up *cluster.Cluster, named bool) (*objects, error) {
	cfg := up.RESTConfig()
	cfg.QPS, cfg.ContentType = -1, runtime.ContentTypeProtobuf
	client, err := kubernetes.NewForConfig(cfg)
	return &objects{client: client, etcd: newEtcd(up), named: named}, err
}

func newService(name string, ip netip.Addr) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/name": name}},
		Spec: corev1.ServiceSpec{
			ClusterIP: ip.String(),
			Ports:     []corev1.ServicePort{{Name: "http", Port: servicePort, Protocol: corev1.ProtocolTCP}},
		},
	}
}

func newSlice(name string, addrs ...netip.Addr) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: "bench-l4",
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints(addrs),
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(podPort)), Protocol: new(corev1.ProtocolTCP)}},
	}
	return s
}

func endpoints(addrs []netip.Addr) []discoveryv1.Endpoint {
	var all []discoveryv1.Endpoint
	for _, a := range addrs {
		all = append(all, discoveryv1.Endpoint{Addresses: []string{a.String()}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}})
	}
	return all
}

// nameEndpoints has endpoints name what they are, as those of a Deployment on 100 nodes in 3 zones: a Pod's name has
// the hash of its template and five letters.
func nameEndpoints(service string, all []discoveryv1.Endpoint) {
	for j := range all {
		n := hash(service, j)
		pod := fmt.Sprintf("%s-%08x-%05x", service, hash(service), n&0xfffff)
		e := &all[j]
		e.NodeName, e.Zone = new(fmt.Sprintf("node-%03d.example.internal", n%100)), new(fmt.Sprintf("region-1%c", 'a'+rune(n%3)))
		e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: pod, UID: uuid.NewUUID()}
		e.Conditions.Serving, e.Conditions.Terminating = new(true), new(false)
	}
}

func hash(of ...any) uint32 {
	h := fnv.New32a()
	fmt.Fprint(h, of...)
	return h.Sum32()
}

// The i-th Service is 10.96.(16+i/256).(i%256), and its j-th endpoint 10.(128+j).(i/256).(i%256).
func name(i int) string { return fmt.Sprintf("service-%05d", i) }

func clusterIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(16 + i>>8), byte(i)}) }

func pods(i, n int) (all []netip.Addr) {
	for j := range n {
		all = append(all, netip.AddrFrom4([4]byte{10, byte(128 + j), byte(i >> 8), byte(i)}))
	}
	return all
}

// createPlain makes a Service of type ClusterIP and its slice, faster than create.
func (o *objects) createPlain(ctx context.Context, s *corev1.Service, addrs []netip.Addr) error {
	if err := o.etcd.createService(ctx, s); err != nil {
		return fmt.Errorf("write Service: %w", err)
	}
	return o.createSlice(ctx, s.Name, addrs)
}

// create makes a Service and its slice.
func (o *objects) create(ctx context.Context, s *corev1.Service, addrs ...netip.Addr) error {
	if _, err := o.client.CoreV1().Services(namespace).Create(ctx, s, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create Service: %w", err)
	}
	return o.createSlice(ctx, s.Name, addrs)
}

func (o *objects) createSlice(ctx context.Context, name string, addrs []netip.Addr) error {
	s := newSlice(name, addrs...)
	if o.named {
		nameEndpoints(name, s.Endpoints)
	}
	if _, err := o.client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, s, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create EndpointSlice: %w", err)
	}
	return nil
}

// grow sees to it that there are so many Services with so many endpoints each.
func (o *objects) grow(ctx context.Context, services, each int) error {
	var more []*corev1.Service
	for i := o.services; i < services; i++ {
		more = append(more, newService(name(i), clusterIP(i)))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	if o.endpoints != each {
		for i := range o.services {
			all := endpoints(pods(i, each))
			if o.named {
				nameEndpoints(name(i), all)
			}
			g.Go(func() error { return o.patch(ctx, name(i), "/endpoints", all) })
		}
	}
	i := o.services
	for chunk := range slices.Chunk(more, batch) {
		if err := o.etcd.claim(ctx, chunk); err != nil {
			return errors.Join(err, g.Wait())
		}
		for _, s := range chunk {
			addrs := pods(i, each)
			g.Go(func() error { return o.createPlain(ctx, s, addrs) })
			i++
		}
	}
	o.services, o.endpoints = services, each
	return g.Wait()
}

// patch replaces a part of a slice, and returns when the API server has answered.
func (o *objects) patch(ctx context.Context, name, path string, value any) error {
	body, err := json.Marshal([]map[string]any{{"op": "replace", "path": path, "value": value}})
	if err != nil {
		return err
	}
	if _, err := o.client.DiscoveryV1().EndpointSlices(namespace).Patch(ctx, name, types.JSONPatchType, body, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("patch EndpointSlice: %w", err)
	}
	return nil
}

// register makes the Node objects, as nobody else does.
func (o *objects) register(ctx context.Context, up *cluster.Cluster) error {
	for _, name := range up.Nodes() {
		n := &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
			Status: corev1.NodeStatus{
				Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: up.NodeIP(name).String()}},
				Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			},
		}
		made, err := o.client.CoreV1().Nodes().Create(ctx, n, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("create Node: %w", err)
		}
		made.Spec.Taints = nil // admission gives it the one of nodes that are not ready
		if made, err = o.client.CoreV1().Nodes().Update(ctx, made, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update Node: %w", err)
		}
		made.Status = n.Status
		if _, err := o.client.CoreV1().Nodes().UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update Node: %w", err)
		}
	}
	return nil
}
