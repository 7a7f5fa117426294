package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/portico-ingress/portico/e2e/suite"
)

const (
	exact    = networkingv1.PathTypeExact
	prefix   = networkingv1.PathTypePrefix
	specific = networkingv1.PathTypeImplementationSpecific
)

// The first part is the table of
// https://kubernetes.io/docs/concepts/services-networking/ingress/#examples.
func TestARequestGoesByTheLongestPathThatMatches(t *testing.T) {
	t.Parallel()
	type path struct {
		kind    networkingv1.PathType
		path    string
		backend string
	}
	cases := []struct {
		name    string
		paths   []path
		request string
		want    string
	}{
		{"Prefix / matches all paths", []path{{prefix, "/", "blue"}}, "/all/of/them", "blue"},
		{"Exact /foo matches /foo", []path{{exact, "/foo", "blue"}}, "/foo", "blue"},
		{"Exact /foo does not match /bar", []path{{exact, "/foo", "blue"}}, "/bar", "404"},
		{"Exact /foo does not match /foo/", []path{{exact, "/foo", "blue"}}, "/foo/", "404"},
		{"Exact /foo/ does not match /foo", []path{{exact, "/foo/", "blue"}}, "/foo", "404"},
		{"Prefix /foo matches /foo", []path{{prefix, "/foo", "blue"}}, "/foo", "blue"},
		{"Prefix /foo matches /foo/", []path{{prefix, "/foo", "blue"}}, "/foo/", "blue"},
		{"Prefix /foo/ matches /foo", []path{{prefix, "/foo/", "blue"}}, "/foo", "blue"},
		{"Prefix /foo/ matches /foo/", []path{{prefix, "/foo/", "blue"}}, "/foo/", "blue"},
		{"Prefix /aaa/bb does not match /aaa/bbb", []path{{prefix, "/aaa/bb", "blue"}}, "/aaa/bbb", "404"},
		{"Prefix /aaa/bbb matches /aaa/bbb", []path{{prefix, "/aaa/bbb", "blue"}}, "/aaa/bbb", "blue"},
		{"Prefix /aaa/bbb/ ignores its trailing slash", []path{{prefix, "/aaa/bbb/", "blue"}}, "/aaa/bbb", "blue"},
		{"Prefix /aaa/bbb matches a trailing slash", []path{{prefix, "/aaa/bbb", "blue"}}, "/aaa/bbb/", "blue"},
		{"Prefix /aaa/bbb matches what is below", []path{{prefix, "/aaa/bbb", "blue"}}, "/aaa/bbb/ccc", "blue"},
		{"Prefix /aaa/bbb does not match half an element", []path{{prefix, "/aaa/bbb", "blue"}}, "/aaa/bbbxyz", "404"},
		{"Prefix / and /aaa: the longer one", []path{{prefix, "/", "blue"}, {prefix, "/aaa", "green"}}, "/aaa/ccc", "green"},
		{"Prefix /, /aaa and /aaa/bbb: the longest one", []path{{prefix, "/", "blue"}, {prefix, "/aaa", "green"}, {prefix, "/aaa/bbb", "red"}}, "/aaa/bbb", "red"},
		{"Prefix /, /aaa and /aaa/bbb: what is left goes to /", []path{{prefix, "/", "blue"}, {prefix, "/aaa", "green"}, {prefix, "/aaa/bbb", "red"}}, "/ccc", "blue"},
		{"Prefix /aaa does not match /ccc", []path{{prefix, "/aaa", "blue"}}, "/ccc", "404"},
		{"Exact and Prefix /foo: Exact", []path{{prefix, "/foo", "green"}, {exact, "/foo", "blue"}}, "/foo", "blue"},
		// Not in the table of the documentation.
		{"Exact and Prefix /foo: what is below goes to Prefix", []path{{prefix, "/foo", "green"}, {exact, "/foo", "blue"}}, "/foo/bar", "green"},
		{"Prefix /foo does not match /foobar", []path{{prefix, "/foo", "blue"}}, "/foobar", "404"},
		{"Exact /foo/ matches /foo/", []path{{exact, "/foo/", "blue"}}, "/foo/", "blue"},
		{"Exact / matches nothing but /", []path{{exact, "/", "blue"}}, "/x", "404"},
		{"the order of the paths does not matter", []path{{prefix, "/aaa/bbb", "red"}, {prefix, "/aaa", "green"}, {prefix, "/", "blue"}}, "/aaa/x", "green"},
		{"ImplementationSpecific is Prefix", []path{{specific, "/foo", "blue"}}, "/foo/bar", "blue"},
		{"ImplementationSpecific is Prefix by element", []path{{specific, "/foo", "blue"}}, "/foobar", "404"},
		{"ImplementationSpecific without a path is for all", []path{{specific, "", "blue"}}, "/foo", "blue"},
		{"paths tell upper case from lower case", []path{{prefix, "/foo", "blue"}}, "/FOO", "404"},
		{"a query is no part of the path", []path{{exact, "/foo", "blue"}}, "/foo?x=/bar", "blue"},
		{"dot segments do not lead around a path", []path{{prefix, "/", "blue"}, {prefix, "/admin", "green"}}, "/x/../admin", "green"},
		{"encoded dot segments do not either", []path{{prefix, "/", "blue"}, {prefix, "/admin", "green"}}, "/x/%2e%2E/admin", "green"},
		{"encoded letters do not either", []path{{prefix, "/", "blue"}, {prefix, "/admin", "green"}}, "/%61dmin", "green"},
		{"slashes twice do not either", []path{{prefix, "/", "blue"}, {prefix, "/admin/x", "green"}}, "//admin//x", "green"},
	}
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	for i, tt := range cases {
		var rules []rule
		for _, p := range tt.paths {
			rules = append(rules, rule{host: pathHost(ns, i), path: p.path, kind: p.kind, backend: p.backend})
		}
		createIngress(t, ns, newIngress(fmt.Sprintf("case-%d", i), rules...))
	}
	e.settle(t)
	for i, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			e.mustBeAnsweredBy(t, tt.want, "http://"+pathHost(ns, i)+tt.request, "--path-as-is")
		})
	}
}

func pathHost(ns string, i int) string { return fmt.Sprintf("%d.%s.test", i, ns) }

func TestOfTwoIngressesWithTheSamePathTheOldestWins(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	host := ns + ".test"
	old := createIngress(t, ns, newIngress("z-old", rule{host: host, path: "/same", backend: "blue"}))
	suite.Wait(t, 5*time.Second, "another second", func(context.Context) string {
		if !time.Now().After(old.CreationTimestamp.Add(1100 * time.Millisecond)) {
			return "still the same"
		}
		return ""
	})
	createIngress(t, ns, newIngress("a-new",
		rule{host: host, path: "/same", backend: "green"},
		rule{host: host, path: "/other", backend: "red"},
	))
	e.settle(t)
	e.waitAnsweredBy(t, "blue", "http://"+host+"/same")
	e.mustBeAnsweredBy(t, "red", "http://"+host+"/other")
	e.waitProblem(t, "Ingress", ns, "a-new", "z-old")
	waitEvent(t, "Ingress", ns, "a-new", "DuplicatePath")
	e.waitNoProblem(t, "Ingress", ns, "z-old")

	deleteIngress(t, ns, "z-old")
	e.waitAnsweredBy(t, "green", "http://"+host+"/same")
	e.waitNoProblem(t, "Ingress", ns, "a-new")
}

// Two Ingresses of the same second are told apart by namespace and name.
func TestOfTwoIngressesOfTheSameAgeTheFirstByNameWins(t *testing.T) {
	t.Parallel()
	e := portico(t)
	ns := newNamespace(t)
	paintServices(t, ns)
	host := ns + ".test"
	for try := range 20 {
		b := createIngress(t, ns, newIngress(fmt.Sprintf("b%d", try), rule{host: host, path: "/", backend: "green"}))
		a := createIngress(t, ns, newIngress(fmt.Sprintf("a%d", try), rule{host: host, path: "/", backend: "blue"}))
		if a.CreationTimestamp.Equal(&b.CreationTimestamp) {
			e.settle(t)
			e.waitAnsweredBy(t, "blue", "http://"+host+"/")
			e.waitProblem(t, "Ingress", ns, b.Name, a.Name)
			return
		}
		deleteIngress(t, ns, a.Name)
		deleteIngress(t, ns, b.Name)
	}
	t.Fatal("no two Ingresses were made within a second")
}
