// Package addresses gives LoadBalancer Services their addresses: from pools, as MetalLB's
// resources, flags or a ConfigMap describe them. Allocate decides and is pure; Controller reads
// and writes the API server. README.md has the picture.
package addresses
