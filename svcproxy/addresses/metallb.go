package addresses

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// These are the resources of MetalLB (metallb.io/v1beta1) that Portico reads, as far as it
// reads them. Their fields have MetalLB's meaning.

// IPAddressPool is a set of addresses and who may have them.
type IPAddressPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              IPAddressPoolSpec `json:"spec"`
}

// IPAddressPoolSpec is the spec of an IPAddressPool.
type IPAddressPoolSpec struct {
	// Addresses are CIDRs (192.0.2.0/24) and ranges (192.0.2.10-192.0.2.20).
	Addresses []string `json:"addresses"`
	// AutoAssign, true if not given, lets Services have addresses that do not name the pool.
	AutoAssign *bool `json:"autoAssign,omitempty"`
	// AvoidBuggyIPs leaves out IPv4 addresses that end in .0 and .255.
	AvoidBuggyIPs     bool               `json:"avoidBuggyIPs,omitempty"`
	ServiceAllocation *ServiceAllocation `json:"serviceAllocation,omitempty"`
}

// ServiceAllocation restricts a pool to some Services, and ranks it for them.
type ServiceAllocation struct {
	// Priority: the lowest number comes first, 0 is none and comes last.
	Priority int `json:"priority,omitempty"`
	// Namespaces and NamespaceSelectors: a Service is in one of these namespaces, or in one
	// that one of the selectors takes. Without either, in any.
	Namespaces         []string               `json:"namespaces,omitempty"`
	NamespaceSelectors []metav1.LabelSelector `json:"namespaceSelectors,omitempty"`
	// ServiceSelectors: one of them takes the Service. Without any, every one.
	ServiceSelectors []metav1.LabelSelector `json:"serviceSelectors,omitempty"`
}

// L2Advertisement says from which nodes and interfaces the addresses of pools are announced.
type L2Advertisement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              L2AdvertisementSpec `json:"spec"`
}

// L2AdvertisementSpec is the spec of an L2Advertisement. Where nothing is given, it is about all.
type L2AdvertisementSpec struct {
	IPAddressPools         []string               `json:"ipAddressPools,omitempty"`
	IPAddressPoolSelectors []metav1.LabelSelector `json:"ipAddressPoolSelectors,omitempty"`
	NodeSelectors          []metav1.LabelSelector `json:"nodeSelectors,omitempty"`
	Interfaces             []string               `json:"interfaces,omitempty"`
	// ServiceSelectors restrict it to some Services. That is not supported, and refused: without it, it would hold for all.
	ServiceSelectors []metav1.LabelSelector `json:"serviceSelectors,omitempty"`
}
