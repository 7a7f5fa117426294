package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// Others script against these names and defaults.
func TestFlagDefaults(t *testing.T) {
	want := map[string]string{
		"manifests":                     "",
		"kubeconfig":                    "",
		"demo":                          "false",
		"http":                          ":8080",
		"https":                         ":8443",
		"http2":                         "true",
		"h2c":                           "false",
		"proxy-protocol-from":           "",
		"admin":                         "127.0.0.1:10254",
		"ingress-class":                 "portico",
		"controller-class":              "portico.dev/ingress",
		"watch-ingress-without-class":   "false",
		"watch-namespace":               "",
		"publish-service":               "",
		"publish-status-address":        "",
		"session-ticket-secret":         "portico-session-tickets",
		"default-ssl-certificate":       "",
		"default-backend-service":       "",
		"configmap":                     "",
		"election-id":                   "portico-leader",
		"update-status":                 "true",
		"server-header":                 "true",
		"allow-loopback-external-names": "false",
		"shutdown-delay":                "5s",
		"shutdown-grace-period":         "30s",
		"log-level":                     "info",
		"access-log":                    "stdout",
	}
	s := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	newServeFlags().register(s)
	got := map[string]string{}
	s.VisitAll(func(f *pflag.Flag) { got[f.Name] = f.DefValue })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFlagValues(t *testing.T) {
	f := newServeFlags()
	s := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	f.register(s)
	err := s.Parse([]string{
		"--http=[::1]:80", "--https=edge.example:0", "--admin=",
		"--watch-namespace=a", "--watch-namespace=b", "--watch-namespace=c,d",
		"--publish-status-address=192.0.2.1,lb.example", "--publish-status-address=2001:db8::1",
		"--configmap=portico/settings", "--configmap=",
		"--proxy-protocol-from=10.0.0.0/8,192.0.2.1", "--proxy-protocol-from=2001:db8::/32",
		"--shutdown-grace-period=240",
	})
	if err != nil {
		t.Fatal(err)
	}
	got := []any{f.http, f.https, f.admin, f.watchNamespaces, f.publishStatusAddress, f.configMap.get().Name, f.proxyProtocolFrom.String(), time.Duration(f.shutdownGracePeriod)}
	want := []any{
		address("[::1]:80"), address("edge.example:0"), address(""),
		namespaces{"a", "b", "c", "d"},
		publicAddresses{"192.0.2.1", "lb.example", "2001:db8::1"},
		"", "10.0.0.0/8,192.0.2.1/32,2001:db8::/32", 240 * time.Second,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A person who tries it on a laptop does not wait for load balancers.
func TestShutdownDelayIsForClusters(t *testing.T) {
	tests := []struct {
		args []string
		want time.Duration
	}{
		{nil, 5 * time.Second},
		{[]string{"--demo"}, 0},
		{[]string{"--manifests=."}, 0},
		{[]string{"--demo", "--shutdown-delay=2s"}, 2 * time.Second},
	}
	for _, tt := range tests {
		f := newServeFlags()
		s := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		f.register(s)
		if err := s.Parse(tt.args); err != nil {
			t.Fatal(err)
		}
		if got := f.delay(); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.args, got, tt.want)
		}
	}
}
