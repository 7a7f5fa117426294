package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// Others script against these names and defaults.
func TestSvcproxyFlagDefaults(t *testing.T) {
	want := map[string]string{
		"manifests": "", "kubeconfig": "", "node-name": "", "apiserver": "", "mode": "auto", "cluster-cidr": "",
		"nodeport-addresses": "", "nodeport-range": "30000-32767", "lb-pool": "", "lb-pool-namespace": "[]", "lb-class": "portico.dev/l2", "lb-class-only": "false", "announce-interface": "[]",
		"admin": "127.0.0.1:10276", "healthz-bind-address": "0.0.0.0:10256", "endpoint-hold": "1s", "log-level": "info",
		"endpoint-metrics": "1000", "outlier-detection": "false", "outlier-max-ejection-percent": "50",
		"external-ips": "true",
	}
	s := pflag.NewFlagSet("svcproxy", pflag.ContinueOnError)
	newSvcproxyFlags().register(s)
	got := map[string]string{}
	s.VisitAll(func(f *pflag.Flag) { got[f.Name] = f.DefValue })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestExternalIPsAreOffByAFlag(t *testing.T) {
	for arg, off := range map[string]bool{"--external-ips": false, "--external-ips=true": false, "--external-ips=false": true} {
		f, s := newSvcproxyFlags(), pflag.NewFlagSet("svcproxy", pflag.ContinueOnError)
		f.register(s)
		if err := s.Parse([]string{arg}); err != nil || f.rules(&dataPlane{}).NoExternalIPs != off {
			t.Errorf("%s: %+v, %v", arg, f.rules(&dataPlane{}), err)
		}
	}
}

func TestSvcproxyRefusesBadFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--cluster-cidr=10.0.0.0", "want address ranges like"},
		{"--nodeport-range=5-4", "want ports like"},
		{"--apiserver=a", "want host:port"},
		{"--endpoint-hold=1m", "want 0 to 10s"},
		{"--healthz-bind-address=10256", "want host:port"},
		{"--mode=ipvs", "want one of auto, nftables, relay"},
		{"--lb-pool=10.0.0.1", "want address ranges like"},
		{"--lb-class=a/b/c", "want a name like example.com/internal"},
		{"--lb-class=", "want a name like example.com/internal"},
		{"--lb-pool-namespace=*", "want the name of a namespace"},
		{"--manifests=. --lb-class-only", "need a cluster"},
		{"--manifests=. --lb-pool=10.0.0.0/8", "need a cluster"},
		{"--manifests=. --announce-interface=eth0", "need a cluster"},
		{"--announce-interface=eth[", "want the name of an interface"},
		{"--endpoint-metrics=-1", "want 0 to 100000"},
		{"--outlier-max-ejection-percent=0", "want 1 to 100"},
		{"--outlier-max-ejection-percent=101", "want 1 to 100"},
		{"--manifests=/nowhere/at/all", "no such file"},
		{"--manifests=. --kubeconfig=x", "give one of them"},
		{"extra", "unknown command"},
	} {
		var stderr bytes.Buffer
		code := run(t.Context(), append([]string{"svcproxy"}, strings.Fields(c.args)...), &bytes.Buffer{}, &stderr)
		if code != exitUsage || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: %d %s, want %s", c.args, code, stderr.String(), c.want)
		}
	}
}
