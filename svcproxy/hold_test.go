package svcproxy

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/portico-ingress/portico/manifests"
)

// flagged is a slice of endpoints like "10.0.0.1,terminating": ready, unless a flag says otherwise.
func flagged(service, suffix, endpoints string) *discoveryv1.EndpointSlice {
	s := newSlice(service, suffix)
	for word := range strings.FieldsSeq(endpoints) {
		addr, flag, _ := strings.Cut(word, ",")
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{
			Ready: new(flag == ""), Serving: new(flag == "" || flag == "terminating"), Terminating: new(flag == "terminating" || flag == "over"),
		}})
	}
	return s
}

func TestHold(t *testing.T) {
	const hold = time.Second
	type step struct {
		after time.Duration
		// one and two are what the slices of the Service have from now on; "-": no such slice.
		one, two string
		want     string // endpoints in use, or the Action
		let      bool   // go on only with what the clock does
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"moves to another slice", []step{{one: "10.0.0.1", two: "-", want: "10.0.0.1"}, {one: "", two: "-", want: "10.0.0.1"}, {one: "", two: "10.0.0.1", want: "10.0.0.1"}}},
		{"the slice is made again", []step{{one: "10.0.0.1 10.0.0.2", two: "-", want: "10.0.0.1 10.0.0.2"}, {one: "-", two: "-", want: "10.0.0.1 10.0.0.2"}, {one: "10.0.0.3", two: "-", want: "10.0.0.3"}}},
		{"another is there, and is ready later", []step{{one: "10.0.0.1", two: "10.0.0.2,unready", want: "10.0.0.1"}, {one: "", two: "10.0.0.2,unready", want: "10.0.0.1"}, {one: "", two: "10.0.0.2", want: "10.0.0.2"}}},
		{"for no longer", []step{{one: "10.0.0.1", two: "-", want: "10.0.0.1"}, {one: "", two: "-", want: "10.0.0.1"}, {after: hold - 1, let: true, want: "10.0.0.1"}, {after: 1, let: true, want: "reject"}, {one: "10.0.0.1", two: "-", want: "10.0.0.1"}}},
		{"nor for other changes meanwhile", []step{{one: "10.0.0.1", two: "-", want: "10.0.0.1"}, {one: "", two: "-", want: "10.0.0.1"}, {after: hold / 2, one: "10.0.0.2,unready", two: "-", want: "10.0.0.1"}, {after: hold / 2, let: true, want: "reject"}}},
		{"not ready is not held", []step{{one: "10.0.0.1", two: "-", want: "10.0.0.1"}, {one: "10.0.0.1,unready", two: "-", want: "reject"}, {one: "", two: "-", want: "reject"}}},
		{"held, then said to be not ready", []step{{one: "10.0.0.1", two: "-", want: "10.0.0.1"}, {one: "", two: "-", want: "10.0.0.1"}, {one: "10.0.0.1,unready", two: "-", want: "reject"}}},
		{"scaled to zero", []step{{one: "10.0.0.1", two: "-", want: "10.0.0.1"}, {one: "10.0.0.1,terminating", two: "-", want: "10.0.0.1"}, {one: "", two: "-", want: "reject"}}},
		{"terminating serves until the other is ready", []step{{one: "10.0.0.1,terminating 10.0.0.2,unready", two: "-", want: "10.0.0.1"}, {one: "10.0.0.1,terminating 10.0.0.2", two: "-", want: "10.0.0.2"}, {one: "10.0.0.2", two: "-", want: "10.0.0.2"}}},
		{"terminating and not serving", []step{{one: "10.0.0.1,over 10.0.0.2,unready", two: "-", want: "reject"}}},
		{"others are ready", []step{{one: "10.0.0.1 10.0.0.2", two: "-", want: "10.0.0.1 10.0.0.2"}, {one: "10.0.0.2", two: "-", want: "10.0.0.2"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			store := manifests.NewStore()
			store.Open()
			store.Put(newService("s", "172.30.0.1", nil))
			c := newCompiler(Rules{NodeName: "n", Hold: hold})
			now := time.Unix(1000, 0)
			c.now = func() time.Time { return now }
			for i, s := range test.steps {
				now = now.Add(s.after)
				if s.let {
					c.letGo()
				} else {
					putOrDelete(store, "-1", s.one)
					putOrDelete(store, "-2", s.two)
					change, _ := store.Take()
					c.apply(change)
				}
				if got := used(c, "ns/s"); got != s.want {
					t.Errorf("step %d: %s, want %s", i, got, s.want)
				}
			}
		})
	}
}

func putOrDelete(store *manifests.Store, suffix, endpoints string) {
	if endpoints == "-" {
		store.Delete(manifests.Ref{Kind: manifests.KindEndpointSlice, Namespace: "ns", Name: "s" + suffix})
		return
	}
	store.Put(flagged("s", suffix, endpoints))
}

// used are the endpoints of a Service's only port, or what is done without.
func used(c *compiler, key string) string {
	s, _ := c.services.Get(key)
	p := s.Ports[0]
	if p.Frontends[0].Action != Forward {
		return string(p.Frontends[0].Action)
	}
	var all []string
	for _, e := range p.Endpoints {
		if e.Cluster {
			all = append(all, e.Addr.Addr().String())
		}
	}
	return strings.Join(all, " ")
}

// Each port of a Service holds its endpoints for as long as it may, whatever the other one does.
func TestHoldOfEachPort(t *testing.T) {
	const hold = time.Second
	store := manifests.NewStore()
	store.Open()
	store.Put(newService("s", "172.30.0.1", func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{{Name: "one", Port: 80}, {Name: "two", Port: 81}}
	}))
	c := newCompiler(Rules{NodeName: "n", Hold: hold})
	now := time.Unix(1000, 0)
	c.now = func() time.Time { return now }
	put := func(port, endpoints string) {
		s := flagged("s", "-"+port, endpoints)
		s.Ports[0].Name = &port
		store.Put(s)
	}
	put("one", "10.0.0.1")
	put("two", "10.0.0.2")
	for i, step := range []struct {
		after    time.Duration
		empty    string // the slice of this port
		one, two bool   // is forwarded
		next     time.Duration
	}{
		{0, "", true, true, 0},
		{0, "one", true, true, hold},
		{hold * 9 / 10, "two", true, true, hold / 10},
		{hold / 10, "", false, true, hold * 9 / 10},
		{hold*9/10 - 1, "", false, true, 1},
		{1, "", false, false, 0},
	} {
		if now = now.Add(step.after); step.empty != "" {
			put(step.empty, "")
		}
		change, _ := store.Take()
		c.apply(change)
		c.letGo()
		s, _ := c.services.Get("ns/s")
		for j, want := range []bool{step.one, step.two} {
			if got := s.Ports[j].Frontends[0].Action == Forward; got != want {
				t.Errorf("step %d: port %d forwarded: %v, want %v", i, j, got, want)
			}
		}
		var want time.Time
		if step.next > 0 {
			want = now.Add(step.next)
		}
		if got := c.nextLetGo(); got != want {
			t.Errorf("step %d: next at %v, want %v", i, got, want)
		}
	}
}

// Who is deleted, or made another Service, holds nothing.
func TestHoldEndsWithTheService(t *testing.T) {
	store := manifests.NewStore()
	store.Open()
	c := newCompiler(Rules{NodeName: "n", Hold: time.Hour})
	step := func() {
		change, _ := store.Take()
		c.apply(change)
	}
	for i, end := range []func(){
		func() { store.Delete(manifests.Ref{Kind: manifests.KindService, Namespace: "ns", Name: "s"}) },
		func() { store.Put(newService("s", "None", nil)) },
		func() {
			store.Put(newService("s", "172.30.0.1", func(s *corev1.Service) { s.Spec.Ports[0].Name = "other" }))
		},
	} {
		store.Put(newService("s", "172.30.0.1", nil))
		store.Put(flagged("s", "-1", "10.0.0.1"))
		step()
		store.Put(flagged("s", "-1", ""))
		step()
		if used(c, "ns/s") != "10.0.0.1" || c.nextLetGo().IsZero() {
			t.Fatal("nothing is held")
		}
		end()
		step()
		if !c.nextLetGo().IsZero() {
			t.Errorf("case %d: still held: %v", i, c.held)
		}
	}
}
