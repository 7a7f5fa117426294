package svcproxy

import (
	"context"

	"github.com/portico-ingress/portico/manifests"
)

// Plane makes a desired state true, in the terms of this package. There are two: Kernel and Relay. What
// is live is read back from each in its own words: nft.Plane.Counters, relay.Plane.Counters and Trace.
type Plane interface {
	// Apply makes changes live, all or, after an error, later.
	Apply(u Update) error
	// Repair compares what is live with what is wanted, and makes live what is not.
	Repair() error
	// Run keeps it so until ctx ends.
	Run(ctx context.Context)
	// Problems are what this host cannot serve, now.
	Problems() []manifests.Problem
}

// Update is what Apply makes live at once.
type Update struct {
	Delta
	// Network is what all Services share, with the first Update and when it has changed; nil otherwise.
	Network *Network
	// Complete says that Delta.Put is all there is. The first Update is complete.
	Complete bool
}
