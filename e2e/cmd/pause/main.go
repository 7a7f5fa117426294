// Pause does nothing, properly: it is the process that holds a Pod's
// namespaces, and the first process of a node. As the first process of a PID
// namespace it takes over orphans, so it has to collect them when they end.
package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT)
	for s := range signals {
		if s != unix.SIGCHLD {
			return
		}
		collect()
	}
}

// collect reaps every child that has ended. One signal may stand for several.
func collect() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}
