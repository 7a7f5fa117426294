//go:build race || poison

package engine

// poison overwrites buffers that are given back, so that a use afterwards is seen.
const poison = true
