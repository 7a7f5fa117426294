package manifests

import "context"

// A Source keeps a Store equal to what a cluster or a folder says. There are two:
// Cluster and Files.
type Source interface {
	// Run fills the Store, opens it once its first view is complete, and keeps it current
	// until ctx ends. Losing the cluster or the folder changes nothing in the Store.
	// An error means that Run could not start.
	Run(ctx context.Context, store *Store) error
	// Want names the Secrets and ConfigMaps that served objects refer to, all of them,
	// each time that set changes. A Source that pays for them fetches these and no others.
	// It may be called at any time and does not block.
	Want(refs []Ref)
}
