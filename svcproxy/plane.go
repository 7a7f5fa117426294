package svcproxy

import (
	"context"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/svcproxy/nft"
)

// Plane makes a desired state true, in the terms of this package. There are two: Kernel and Relay.
type Plane interface {
	// Apply makes changes live, all or, after an error, later.
	Apply(u Update) error
	// Repair compares what is live with what is wanted, and makes live what is not.
	Repair() error
	// Run keeps it so until ctx ends.
	Run(ctx context.Context)
	// Problems are what this host cannot serve, now.
	Problems() []manifests.Problem
	// Look reads back what is live, and changes nothing.
	Look() (Live, error)
}

// Live is what a data plane has at one moment, whoever put it there.
type Live interface {
	// Damage says why it is not what this program makes, or is "".
	Damage() string
	// Trace follows the first packet of a connection through it.
	Trace(p nft.Packet) nft.Fate
}

// Update is what Apply makes live at once.
type Update struct {
	Delta
	// Network is what all Services share, with the first Update and when it has changed; nil otherwise.
	Network *Network
	// Complete says that Delta.Put is all there is. The first Update is complete.
	Complete bool
}
