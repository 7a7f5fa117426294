package filter

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/portico-ingress/portico/router/engine"
)

// HTTPSRedirect answers what comes in plain HTTP with 308 to the same place over https. The
// port is left out: outside, https is on its own. It allocates nothing but the Location.
type HTTPSRedirect struct {
	hosts []string // sorted; empty: all
}

// NewHTTPSRedirect redirects requests for these hosts, exact ("a.example") or wildcard
// ("*.example"), or for every host if there are none.
func NewHTTPSRedirect(hosts ...string) *HTTPSRedirect {
	hosts = slices.Clone(hosts)
	slices.Sort(hosts)
	return &HTTPSRedirect{hosts: slices.Compact(hosts)}
}

// Request answers plain HTTP.
func (f *HTTPSRedirect) Request(x *engine.Exchange) (answered bool) {
	if x.Secure() || !f.covers(x.Request.Host) {
		return false
	}
	x.Redirect(http.StatusPermanentRedirect, location(&x.Request))
	return true
}

// Response changes nothing.
func (f *HTTPSRedirect) Response(*engine.Exchange) {}

// String names the filter in dumps.
func (f *HTTPSRedirect) String() string {
	if len(f.hosts) == 0 {
		return "https-redirect"
	}
	return fmt.Sprintf("https-redirect(%s)", strings.Join(f.hosts, ","))
}

func (f *HTTPSRedirect) covers(host []byte) bool {
	if len(f.hosts) == 0 {
		return len(host) > 0 // without a name there is nowhere to send the client
	}
	for _, h := range f.hosts {
		if matches(h, host) {
			return true
		}
	}
	return false
}

// matches compares a pattern with a host; a star stands for one label.
func matches(pattern string, host []byte) bool {
	if pattern == string(host) {
		return true
	}
	if len(pattern) < 2 || pattern[0] != '*' {
		return false
	}
	i := slices.Index(host, '.')
	return i > 0 && pattern[1:] == string(host[i:])
}

// location keeps the target as the client spelled it. One that is no path ("*", or a whole
// URL) is made anew of its parts.
func location(r *engine.Request) []byte {
	const scheme = "https://"
	l := make([]byte, 0, len(scheme)+len(r.Host)+len("[]")+max(len(r.Target), len(r.Path)+len(r.Query)+1))
	l = append(l, scheme...)
	if slices.Contains(r.Host, ':') { // an IPv6 address
		l = append(append(append(l, '['), r.Host...), ']')
	} else {
		l = append(l, r.Host...)
	}
	if len(r.Target) > 0 && r.Target[0] == '/' {
		return append(l, r.Target...)
	}
	if len(r.Path) > 0 && r.Path[0] == '/' {
		l = append(l, r.Path...)
	} else {
		l = append(l, '/')
	}
	if r.HasQuery {
		l = append(append(l, '?'), r.Query...)
	}
	return l
}
