package main

import (
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// reservedDescriptors are kept for what is not a client's or a backend's connection:
	// listeners, the API server, probes, files.
	reservedDescriptors = 128
	// mostConnections is the default of the engine.
	mostConnections = 65536
	// fewConnections is worth a warning: that many clients are nothing unusual.
	fewConnections = 4096
)

// maxConnections is how many client connections there may be: two thirds of the descriptors of
// the process. Most of many clients are idle and need none for a backend; if more than half are
// not, connecting to backends fails with 503 until some have ended, and nothing else does. (The
// runtime has raised the soft limit to the hard one by now.)
func maxConnections(log *zap.Logger) int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return mostConnections
	}
	n := connectionsFor(limit.Cur)
	if n < fewConnections {
		log.Warn("the limit of open files allows few connections; raise it (ulimit -n)",
			zap.Uint64("limit", limit.Cur), zap.Int("connections", n))
	}
	return n
}

func connectionsFor(descriptors uint64) int {
	if descriptors >= mostConnections/2*3+reservedDescriptors {
		return mostConnections
	}
	return max(1, (int(descriptors)-reservedDescriptors)/3*2)
}
