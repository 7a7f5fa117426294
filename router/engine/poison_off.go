//go:build !race && !poison

package engine

// poison costs time, so only test builds have it.
const poison = false
