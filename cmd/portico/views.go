package main

import (
	"cmp"
	"fmt"
	"iter"
	"net/http"
	"reflect"
	"time"

	"github.com/portico-ingress/portico/certs"
	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// What the admin API says. Scripts read it: members are added and never renamed, and a list
// is never null.

type tableView struct {
	Generation uint64     `json:"generation"`
	Hosts      []hostView `json:"hosts"`
	// Fallback answers what no host does; absent is the built-in 404.
	Fallback *routeView `json:"fallback,omitempty"`
}

type hostView struct {
	// Host is "a.example", "*.example", or "" for any.
	Host   string      `json:"host"`
	Routes []routeView `json:"routes"`
	// Fallback answers paths that no route matches.
	Fallback *routeView `json:"fallback,omitempty"`
}

type routeView struct {
	Path     string `json:"path"`
	PathType string `json:"pathType"`
	// Ingress is "namespace/name".
	Ingress string `json:"ingress"`
	// Service is "namespace/name:port".
	Service string `json:"service"`
	// Backend is its name in /api/v1/backends; absent if Portico answers by itself.
	Backend string `json:"backend,omitempty"`
	// Status is what it answers then, and Reason why.
	Status  int      `json:"status,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Filters []string `json:"filters"`
	// Policy says how requests are spread; absent is the default.
	Policy string `json:"policy,omitempty"`
}

func viewTable(t *router.Table) tableView {
	v := tableView{Hosts: []hostView{}}
	if t == nil {
		return v
	}
	v.Generation, v.Fallback = t.Generation(), viewFallback(t.Fallback())
	for h := range t.Hosts() {
		v.Hosts = append(v.Hosts, viewHost(h))
	}
	return v
}

func viewHost(h *router.Host) hostView {
	v := hostView{Host: h.Name(), Routes: []routeView{}, Fallback: viewFallback(h.Fallback())}
	for _, r := range h.Routes() {
		v.Routes = append(v.Routes, viewRoute(r))
	}
	return v
}

func viewFallback(r *router.Route) *routeView {
	if r == nil {
		return nil
	}
	v := viewRoute(r)
	return &v
}

func viewRoute(r *router.Route) routeView {
	v := routeView{
		Path:     r.Path,
		PathType: r.PathType.String(),
		Ingress:  r.Origin,
		Service:  r.Service,
		Filters:  []string{},
		Policy:   r.Policy.String(),
	}
	if r.Backend != nil {
		v.Backend = r.Backend.Name()
	} else {
		v.Status, v.Reason = cmp.Or(r.Status, http.StatusNotFound), r.Reason
	}
	for _, f := range r.Filters {
		v.Filters = append(v.Filters, filterName(f))
	}
	return v
}

func filterName(f router.Filter) string {
	if s, ok := f.(fmt.Stringer); ok {
		return s.String()
	}
	t := reflect.TypeOf(f)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Name()
}

type backendsView struct {
	Backends []backendView `json:"backends"`
}

type backendView struct {
	Name string `json:"name"`
	// Transport is how the endpoints are spoken to; absent is plain HTTP/1.1.
	Transport string `json:"transport,omitempty"`
	// Check is how the endpoints are checked; absent: not at all.
	Check string `json:"check,omitempty"`
	// Pending is the number of requests that wait for a limit.
	Pending   int            `json:"pending"`
	Endpoints []endpointView `json:"endpoints"`
}

type endpointView struct {
	Address string `json:"address"`
	// Pod is absent where the EndpointSlice does not say.
	Pod      string `json:"pod,omitempty"`
	Zone     string `json:"zone,omitempty"`
	InFlight int64  `json:"inFlight"`
	// Down means left alone for now, and State says why: "up"; "down", because it could not be
	// connected to; "ejected", because it answered badly; "unhealthy", because it fails its checks.
	Down  bool   `json:"down"`
	State string `json:"state"`
}

func viewBackends(all iter.Seq[*router.Backend], now time.Time) backendsView {
	v := backendsView{Backends: []backendView{}}
	for b := range all {
		v.Backends = append(v.Backends, viewBackend(b, now))
	}
	return v
}

func viewBackend(b *router.Backend, now time.Time) backendView {
	v := backendView{Name: b.Name(), Transport: b.Transport().Name, Pending: b.Counts().Pending, Endpoints: []endpointView{}}
	if check := b.Check(); check.Kind != router.CheckOff {
		v.Check = check.String()
	}
	for _, e := range b.Endpoints() {
		v.Endpoints = append(v.Endpoints, endpointView{
			Address:  e.Address().String(),
			Pod:      e.Name(),
			Zone:     e.Zone(),
			InFlight: e.InFlight(),
			Down:     e.Down(now),
			State:    e.State(now).String(),
		})
	}
	return v
}

type certificatesView struct {
	Certificates []certs.Info `json:"certificates"`
}

type problemsView struct {
	Problems []manifests.Problem `json:"problems"`
}

// list makes nil an empty list, which JSON tells apart.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
