package services

import "testing"

// Tests that disturb nobody run side by side, as one: the others come one after the other, and
// TestNodeDies last.
func TestSideBySide(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"Affinity":                testAffinity,
		"AffinityTimeout":         testAffinityTimeout,
		"BothFamilies":            testBothFamilies,
		"Churn":                   testChurn,
		"ClusterIPAndNodePort":    testClusterIPAndNodePort,
		"LocalNodePort":           testLocalNodePort,
		"Names":                   testNames,
		"ProxyName":               testProxyName,
		"RefusedWithoutEndpoints": testRefusedWithoutEndpoints,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}
