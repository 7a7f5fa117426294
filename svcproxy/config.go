// Package svcproxy makes every Kubernetes Service work on one node: pure passes say which
// endpoints, which addresses and what becomes of a connection, and why; a data plane (nft) does
// it. README.md has the picture.
package svcproxy

import (
	"errors"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
)

// Config says what a Controller reads and where it puts the result.
type Config struct {
	// Store is where objects come from.
	Store *manifests.Store
	Plane Plane
	Rules
	Network
	// Outliers skips endpoints that fail; nil: none.
	Outliers *OutlierDetection
	// Observe may be nil.
	Observe *Observer
	// Late is how long a change may wait to be live, and the Controller's goroutine may not be heard of,
	// before they are not healthy; zero: a minute.
	Late time.Duration
	// Log may be nil.
	Log *zap.Logger
}

// Observer is told what a Controller does, for metrics. Its functions may be nil. They are called
// from the Controller's goroutine and must not block.
type Observer struct {
	// Programmed is called when a change is live: what it took to compile and to write, and how
	// long ago it reached the Store.
	Programmed func(compile, write, since time.Duration)
	// Changed is called with every change after it has been given to the data plane.
	Changed func(manifests.Change)
	// HealthPortTaken is called when the healthCheckNodePort of a Service cannot be served.
	HealthPortTaken func(service corev1.ObjectReference, port uint16, err error)
	// Outlier is called when an endpoint is skipped because it fails, and when it is used again.
	Outlier func(Outlier)
	// Failed is called when the data plane refused a change, which is then tried again.
	Failed func(err error)
}

// Validate reports what is missing.
func (c *Config) Validate() error {
	switch {
	case c.Store == nil:
		return errors.New("svcproxy: Config.Store is not set")
	case c.Plane == nil:
		return errors.New("svcproxy: Config.Plane is not set")
	case c.NodeName == "":
		return errors.New("svcproxy: Config.NodeName is not set")
	case c.MaxEjectionPercent < 0 || c.MaxEjectionPercent > 100:
		return errors.New("svcproxy: Config.MaxEjectionPercent is not from 0 to 100")
	case c.Late < 0:
		return errors.New("svcproxy: Config.Late is negative")
	case c.Outliers != nil:
		return c.Outliers.Validate()
	}
	return nil
}

func (c *Config) log() *zap.Logger {
	if c.Log == nil {
		return zap.NewNop()
	}
	return c.Log
}
