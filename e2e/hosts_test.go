package e2e

import "testing"

func TestARequestGoesToTheHostItNames(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	d := ns + ".test" // the domain of this test
	createIngress(t, ns, newIngress("hosts",
		rule{host: "shop." + d, path: "/", backend: "blue"},
		rule{host: "*." + d, path: "/", backend: "green"},
		rule{host: "*." + d, path: "/long/path", backend: "red"},
		rule{host: "part." + d, path: "/only", backend: "blue"},
		rule{host: "", path: "/" + ns, backend: "red"},
		rule{host: "xn--bcher-kva." + d, path: "/", backend: "red"},
	))
	e.settle(t)
	e.waitAnsweredBy(t, "blue", "http://shop."+d+"/")

	for _, tt := range []struct {
		name string
		url  string
		args []string
		want string // the backend's name, or a status
	}{
		{name: "an exact host", url: "http://shop." + d + "/", want: "blue"},
		{name: "an exact host beats the wildcard that matches too", url: "http://shop." + d + "/x", want: "blue"},
		{name: "an exact host beats a wildcard with a longer path", url: "http://shop." + d + "/long/path", want: "blue"},
		{name: "an exact host beats no host with a longer path", url: "http://shop." + d + "/" + ns, want: "blue"},
		{name: "a wildcard matches one label", url: "http://x." + d + "/", want: "green"},
		{name: "a wildcard matches one label of any length", url: "http://0123456789-abcdefghijklmnopqrstuvwxyz." + d + "/", want: "green"},
		{name: "a wildcard has paths of its own", url: "http://x." + d + "/long/path/", want: "red"},
		{name: "a wildcard beats no host", url: "http://x." + d + "/" + ns, want: "green"},
		{name: "a wildcard does not match its own domain", url: "http://" + d + "/", want: "404"},
		{name: "a wildcard does not match two labels", url: "http://x.y." + d + "/", want: "404"},
		{name: "a wildcard does not match an empty label", url: "http://x.test/", args: []string{"-H", "Host: ." + d}, want: "400"},
		{name: "an exact host does not go on to the wildcard for another path", url: "http://part." + d + "/other", want: "404"},
		{name: "an exact host has its own path", url: "http://part." + d + "/only", want: "blue"},
		{name: "upper case", url: "http://x/", args: []string{"-H", "Host: SHOP." + ns + ".TEST"}, want: "blue"},
		{name: "upper case for a wildcard", url: "http://x/", args: []string{"-H", "Host: X." + ns + ".TeSt"}, want: "green"},
		{name: "a trailing dot", url: "http://x/", args: []string{"-H", "Host: shop." + d + "."}, want: "blue"},
		{name: "a port", url: "http://x/", args: []string{"-H", "Host: shop." + d + ":8080"}, want: "blue"},
		{name: "upper case, a trailing dot and a port", url: "http://x/", args: []string{"-H", "Host: ShOp." + d + ".:1"}, want: "blue"},
		{name: "an absolute URL", url: "http://shop." + d + "/", args: []string{"--request-target", "http://shop." + d + "/"}, want: "blue"},
		{name: "an absolute URL of another host than the Host field", url: "http://x." + d + "/", args: []string{
			"--request-target", "http://shop." + d + "/",
		}, want: "400"},
		{name: "an international name, written as it is", url: "http://bücher." + d + "/", want: "red"},
		{name: "an international name in punycode", url: "http://x/", args: []string{"-H", "Host: xn--bcher-kva." + d}, want: "red"},
		{name: "an international name in punycode in upper case", url: "http://x/", args: []string{"-H", "Host: XN--BCHER-KVA." + d}, want: "red"},
		{name: "no host matches a host that nobody has", url: "http://elsewhere.test/" + ns, want: "red"},
		{name: "no host matches an IP address", url: "http://192.0.2.1/" + ns, want: "red"},
		{name: "no host matches no Host field", url: "http://x/" + ns, args: []string{"--http1.0", "-H", "Host:"}, want: "red"},
		{name: "a host that nobody has", url: "http://elsewhere.test/", want: "404"},
		{name: "HTTP/1.1 needs a Host field", url: "http://x/" + ns, args: []string{"-H", "Host:"}, want: "400"},
	} {
		t.Run(tt.name, func(t *testing.T) { e.mustBeAnsweredBy(t, tt.want, tt.url, tt.args...) })
	}
}
