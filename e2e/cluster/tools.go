package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// tool is a program of the machine that the cluster needs.
type tool struct{ program, pkg, why string }

var tools = []tool{
	{"ip", "iproute2", "lays the cluster's network"},
	{"nsenter", "util-linux", "runs commands on the cluster's hosts"},
	{"mount", "mount", "makes a node's file system"},
	{"nft", "nftables", "Services and host ports"},
	{"runc", "runc", "runs containers"},
	{"curl", "curl", "the tests' client"},
	{"nghttp", "nghttp2-client", "the tests' client of HTTP/2"},
}

// InstallTools installs the Debian packages of programs this machine lacks, and
// says which and why. With nothing missing it does nothing.
func InstallTools(ctx context.Context, log io.Writer) error {
	if log == nil {
		log = io.Discard
	}
	var missing []string
	for _, t := range tools {
		if _, err := exec.LookPath(t.program); err == nil {
			continue
		}
		fmt.Fprintf(log, "%s is missing (%s): installing the package %s\n", t.program, t.why, t.pkg)
		missing = append(missing, t.pkg)
	}
	if len(missing) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("install %s by hand, as there is no apt-get here", strings.Join(missing, ", "))
	}
	for _, args := range [][]string{
		{"update", "-qq"},
		append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}
