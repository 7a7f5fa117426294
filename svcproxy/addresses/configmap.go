package addresses

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/portico-ingress/portico/manifests"
)

// poolsKey is the key of the ConfigMap that has pools.
const poolsKey = "pools"

// PoolsOf reads pools from a ConfigMap, for clusters without the CRDs. Its key "pools" has
// what is under spec in IPAddressPools, by name:
//
//	pools: |
//	  default: {addresses: [192.0.2.0/24]}
//	  team: {addresses: [198.51.100.1-198.51.100.9], serviceAllocation: {namespaces: [team]}}
func PoolsOf(cm *corev1.ConfigMap) ([]IPAddressPool, []manifests.Problem) {
	text, ok := cm.Data[poolsKey]
	if !ok || strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var specs map[string]IPAddressPoolSpec
	if err := yaml.UnmarshalStrict([]byte(text), &specs); err != nil {
		return nil, []manifests.Problem{{
			Object: manifests.Ref{Kind: manifests.KindConfigMap, Namespace: cm.Namespace, Name: cm.Name},
			Field:  "data." + poolsKey, Text: fmt.Sprintf("%v; no pool of it is used until that is corrected", err),
		}}
	}
	var pools []IPAddressPool
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		p := IPAddressPool{Spec: specs[name]}
		p.Name, p.Namespace = name, cm.Namespace
		pools = append(pools, p)
	}
	return pools, nil
}
