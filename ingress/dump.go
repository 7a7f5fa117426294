package ingress

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/portico-ingress/portico/router"
)

// RouteInfo is one route of a Table, for people and for comparison.
type RouteInfo struct {
	// Host is the pattern, "" for any host. Default marks the route of all other hosts.
	Host    string `json:"host"`
	Default bool   `json:"default,omitempty"`
	// Path and PathType; Fallback marks the route of all other paths of the host.
	Path     string `json:"path"`
	PathType string `json:"pathType"`
	Fallback bool   `json:"fallback,omitempty"`
	// Passthrough marks the route of the host's TLS connections, which are not ended here.
	Passthrough bool `json:"passthrough,omitempty"`
	// Origin is the Ingress, Service what it leads to.
	Origin  string `json:"origin"`
	Service string `json:"service,omitempty"`
	// Transport is how that is spoken to; absent is plain HTTP/1.1.
	Transport string `json:"transport,omitempty"`
	// Endpoints are the addresses at this moment.
	Endpoints []string `json:"endpoints"`
	// Policy says how requests are spread, where that is not the default.
	Policy string `json:"policy,omitempty"`
	// Filters are named in the order they run.
	Filters []string `json:"filters,omitempty"`
	// Timeouts are those that differ from the defaults: "read=1m0s total=2m0s".
	Timeouts string `json:"timeouts,omitempty"`
	// MaxBody and BufferBody are in bytes.
	MaxBody    int64 `json:"maxBody,omitempty"`
	BufferBody int64 `json:"bufferBody,omitempty"`
	// BufferAnswer is in bytes, too.
	BufferAnswer int64 `json:"bufferAnswer,omitempty"`
	// Status is what is answered without a backend, and Reason why.
	Status int    `json:"status,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// Routes lists every route of a Table: by host, then in the order in which paths match,
// fallbacks last. Two tables that do the same have the same list.
func Routes(t *router.Table) []RouteInfo {
	var all []RouteInfo
	for h := range t.Hosts() {
		for _, r := range h.Routes() {
			info := routeInfo(r)
			info.Host = h.Name()
			all = append(all, info)
		}
		if r := h.Fallback(); r != nil {
			info := routeInfo(r)
			info.Host, info.Fallback = h.Name(), true
			all = append(all, info)
		}
		if r := h.Stream(); r != nil {
			info := routeInfo(r)
			info.Host, info.Passthrough = h.Name(), true
			all = append(all, info)
		}
	}
	if r := t.Fallback(); r != nil {
		info := routeInfo(r)
		info.Default, info.Fallback = true, true
		all = append(all, info)
	}
	return all
}

func routeInfo(r *router.Route) RouteInfo {
	info := RouteInfo{
		Host: r.Host, Path: r.Path, PathType: r.PathType.String(),
		Origin: r.Origin, Service: r.Service, Endpoints: []string{}, Reason: r.Reason, Policy: r.Policy.String(),
		Timeouts: r.Timeouts.String(), MaxBody: r.MaxBody, BufferBody: r.BufferBody, BufferAnswer: r.BufferAnswer,
	}
	for _, f := range r.Filters {
		info.Filters = append(info.Filters, fmt.Sprint(f))
	}
	if r.ProxyProtocol != 0 {
		info.Filters = append(info.Filters, fmt.Sprintf("proxy-protocol-v%d", r.ProxyProtocol))
	}
	if r.Backend == nil {
		info.Status = r.Status
		return info
	}
	info.Transport = r.Backend.Transport().Name
	for _, e := range r.Backend.Endpoints() {
		info.Endpoints = append(info.Endpoints, e.Address().String())
	}
	if len(info.Endpoints) == 0 {
		info.Reason = "no endpoints"
	}
	return info
}

// Dump gives a Table as text, one route a line, stable and easy to compare:
//
//	a.example /foo Exact ns/ingress -> ns/service:80 [10.0.0.1:8080] https-redirect
func Dump(t *router.Table) string {
	var b strings.Builder
	for _, r := range Routes(t) {
		b.WriteString(r.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// String is one line of Dump.
func (r RouteInfo) String() string {
	host := r.Host
	switch {
	case r.Default:
		host = "(default)"
	case host == "":
		host = "(any)"
	}
	path := r.Path + " " + r.PathType
	if r.Fallback {
		path = "(other)"
	}
	if r.Passthrough {
		path = "(TLS passthrough)"
	}
	words := []string{host, path, r.Origin, "->"}
	if r.Service != "" {
		words = append(words, r.Service)
	}
	if r.Transport != "" {
		words = append(words, "("+r.Transport+")")
	}
	if r.Status != 0 {
		words = append(words, strconv.Itoa(r.Status))
	} else {
		words = append(words, "["+strings.Join(r.Endpoints, " ")+"]")
	}
	words = append(words, r.Filters...)
	if r.MaxBody > 0 {
		words = append(words, fmt.Sprintf("body<=%d", r.MaxBody))
	}
	if r.BufferBody > 0 {
		words = append(words, fmt.Sprintf("buffer-body=%d", r.BufferBody))
	}
	if r.BufferAnswer > 0 {
		words = append(words, fmt.Sprintf("buffer-answer=%d", r.BufferAnswer))
	}
	if r.Timeouts != "" {
		words = append(words, "timeouts("+r.Timeouts+")")
	}
	if r.Policy != "" {
		words = append(words, r.Policy)
	}
	if r.Reason != "" {
		words = append(words, "("+r.Reason+")")
	}
	return strings.Join(words, " ")
}
