package ingress

import (
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"

	"github.com/portico-ingress/portico/manifests"
	"github.com/portico-ingress/portico/router"
)

// OriginSettings is the Origin of the route that --default-backend-service asks for.
const OriginSettings = "settings"

// buildFallback chooses what answers requests that no host answers: the oldest Ingress with a
// default backend and no rules, else the Service of the settings, else nobody.
func (c *compiler) buildFallback(edit *router.Edit) {
	if old := c.table.Fallback(); old != nil {
		c.countLive(old, -1)
	}
	r := c.fallbackRoute()
	if r != nil {
		c.countLive(r, +1)
	}
	edit.SetFallback(r)
	var all []problem
	for _, st := range c.catchAll[min(1, len(c.catchAll)):] {
		all = append(all, problem{reason: reasonDuplicate, Problem: manifests.Problem{
			Object: refOf(st.object), Field: fallbackField,
			Text: fmt.Sprintf("Ingress %s, which %s, has the default backend for all hosts, so this one is not used; remove one of the two", c.catchAll[0].key, whyFirst(c.catchAll[0], st)),
		}})
	}
	c.problems.set(ofGlobal, "fallback", all)
}

func (c *compiler) fallbackRoute() *router.Route {
	settings := c.settingsRoute() // first, because it also tells what is wrong with it
	if len(c.catchAll) > 0 {
		st := c.catchAll[0]
		return c.route(st, "", "/", router.Prefix, st.spec.fallback)
	}
	return settings
}

// settingsRoute leads to the first port of the default backend Service.
func (c *compiler) settingsRoute() *router.Route {
	name := c.settings.defaultBackend
	if name.Name == "" {
		return nil
	}
	svc := c.objects.Service(name.Namespace, name.Name)
	ref := firstPort(svc)
	c.dropOtherSettingsPorts(ref)
	r := &router.Route{Path: "/", PathType: router.Prefix, Origin: OriginSettings}
	if svc == nil || ref == (portRef{}) {
		why := "does not exist"
		if svc != nil {
			why = "has no TCP port"
		}
		r.Service, r.Status = name.String(), http.StatusServiceUnavailable
		r.Reason = fmt.Sprintf("Service %s %s", name, why)
		c.settingProblem("default backend", manifests.Ref{Kind: manifests.KindService, Namespace: name.Namespace, Name: name.Name},
			"this Service is the default backend (--default-backend-service) and "+why+": what no Ingress answers gets 503; correct it, or the flag")
	} else {
		p := c.port(name, ref)
		p.permanent = true
		c.leadTo(r, p)
		c.problems.set(ofGlobal, "default backend", nil)
	}
	r.Stats = c.stats.Get(statsKey(r))
	return r
}

// dropOtherSettingsPorts lets go of the port that was first before.
func (c *compiler) dropOtherSettingsPorts(ref portRef) {
	s := c.services[c.settings.defaultBackend]
	if s == nil {
		return
	}
	for _, p := range s.ports {
		if p.permanent && p.ref != ref {
			p.permanent = false
			c.garbage = true
			c.dropUnused(s, p)
		}
	}
}

func firstPort(svc *corev1.Service) portRef {
	if svc == nil {
		return portRef{}
	}
	for i := range svc.Spec.Ports {
		if p := &svc.Spec.Ports[i]; isTCP(p.Protocol) {
			return portRef{number: p.Port}
		}
	}
	return portRef{}
}

// settingProblem tells about an object that a setting names.
func (c *compiler) settingProblem(setting string, object manifests.Ref, text string) {
	c.problems.set(ofGlobal, setting, []problem{{reason: reasonDefaultIssues, Problem: manifests.Problem{Object: object, Text: text}}})
}

// notePublishService tells that there are no addresses to publish.
func (c *compiler) notePublishService() {
	name := c.settings.publishService
	ref := manifests.Ref{Kind: manifests.KindService, Namespace: name.Namespace, Name: name.Name}
	const setting = "publish service"
	if name.Name == "" || c.objects.Service(name.Namespace, name.Name) != nil || c.waiting.has(ref, c.now()) {
		c.problems.set(ofGlobal, setting, nil)
		return
	}
	c.settingProblem(setting, ref, "this Service has the addresses for the status of Ingresses (--publish-service) and does not exist, so none are written; create it, or correct the flag")
}

// noteConfigMap tells that the settings in the ConfigMap have no effect yet.
func (c *compiler) noteConfigMap() {
	name := c.settings.configMap
	if name.Name == "" {
		return
	}
	object := manifests.Ref{Kind: manifests.KindConfigMap, Namespace: name.Namespace, Name: name.Name}
	var all []problem
	if m := c.objects.ConfigMap(name.Namespace, name.Name); m != nil {
		for key := range m.Data {
			all = append(all, problem{reason: reasonNotSupported, Problem: manifests.Problem{
				Object: object, Field: "data[" + key + "]", Text: "this setting is not supported yet: ignored; remove it",
			}})
		}
	}
	sortProblems(all)
	c.problems.set(ofGlobal, "configmap", all)
}
