// Coredns is CoreDNS with the plugins that a cluster's DNS needs: what
// https://coredns.io/manual/installation/ calls a build with plugins of one's
// own choice. The full set would bring the clouds' client libraries with it.
package main

import (
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() { coremain.Run() }
