package services

import "testing"

// Tests that disturb nobody run side by side, as one: the others come one after the other, and
// TestNodeDies last. The longest begins.
func TestSideBySide(t *testing.T) {
	t.Run("Churn", testChurn)
	t.Run("Names", testNames)
	t.Run("AffinityTimeout", testAffinityTimeout)
	t.Run("BothFamilies", testBothFamilies)
	t.Run("ClusterIPAndNodePort", testClusterIPAndNodePort)
	t.Run("LocalNodePort", testLocalNodePort)
	t.Run("ProxyName", testProxyName)
	t.Run("Affinity", testAffinity)
	t.Run("RefusedWithoutEndpoints", testRefusedWithoutEndpoints)
}
