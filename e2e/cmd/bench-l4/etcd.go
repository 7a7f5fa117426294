package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/portico-ingress/portico/e2e/cluster"
)

// etcd writes Services where the API server keeps them, which then tells its watchers as of any
// other. Past the API server, because for each Service that it creates it counts the addresses of
// all others, twice: the 15,000th takes 70 ms of CPU, and 20,000 a quarter of an hour.
type etcd struct{ http *http.Client }

func newEtcd(up *cluster.Cluster) *etcd {
	return &etcd{&http.Client{Timeout: time.Minute, Transport: &http.Transport{
		MaxIdleConnsPerHost: writers,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return up.Dial(ctx, cluster.ControlHost, network, addr)
		},
	}}}
}

// batch is how many objects a transaction has at most; etcd takes 128.
const batch = 100

// claim writes the IPAddresses that say whose the addresses of Services are, of one batch at most.
// The API server repairs Services that it sees without, and in time addresses of which nobody is the owner.
func (e *etcd) claim(ctx context.Context, services []*corev1.Service) error {
	objects := map[string]any{}
	for _, s := range services {
		objects["/registry/ipaddresses/"+s.Spec.ClusterIP] = &networkingv1.IPAddress{
			TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "IPAddress"},
			ObjectMeta: born(metav1.ObjectMeta{Name: s.Spec.ClusterIP, Labels: map[string]string{
				networkingv1.LabelIPAddressFamily: string(corev1.IPv4Protocol), networkingv1.LabelManagedBy: "ipallocator.k8s.io",
			}}),
			Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: namespace, Name: s.Name}},
		}
	}
	if err := e.put(ctx, objects); err != nil {
		return fmt.Errorf("write IPAddresses: %w", err)
	}
	return nil
}

// createService writes a Service of type ClusterIP, with all that the API server fills in.
func (e *etcd) createService(ctx context.Context, s *corev1.Service) error {
	s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
	s.ObjectMeta = born(s.ObjectMeta)
	s.Namespace = namespace
	s.Spec.Type = corev1.ServiceTypeClusterIP
	s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
	s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	s.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
	s.Spec.SessionAffinity = corev1.ServiceAffinityNone
	s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
	for i := range s.Spec.Ports {
		s.Spec.Ports[i].TargetPort = intstr.FromInt32(s.Spec.Ports[i].Port)
	}
	return e.put(ctx, map[string]any{"/registry/services/specs/" + namespace + "/" + s.Name: s})
}

// born has what the API server gives to a new object.
func born(m metav1.ObjectMeta) metav1.ObjectMeta {
	m.UID, m.CreationTimestamp = uuid.NewUUID(), metav1.Now()
	return m
}

// put writes objects in one transaction, by etcd's JSON gateway.
func (e *etcd) put(ctx context.Context, objects map[string]any) error {
	type put struct {
		Key   []byte `json:"key"`
		Value []byte `json:"value"`
	}
	type op struct {
		Put put `json:"requestPut"`
	}
	var txn struct {
		Success []op `json:"success"`
	}
	for key, object := range objects {
		value, err := json.Marshal(object)
		if err != nil {
			return err
		}
		txn.Success = append(txn.Success, op{put{[]byte(key), value}})
	}
	body, err := json.Marshal(txn)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, cluster.EtcdURL+"/v3/kv/txn", bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := e.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("etcd: %s: %s", res.Status, answer)
	}
	return err
}
