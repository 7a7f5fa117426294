package addresses

import (
	"cmp"
	"slices"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/portico-ingress/portico/manifests"
)

// ConditionAssigned is the type of the condition in Service.status.conditions that says whether a
// Service has its address, and if not, why. It says so for as long as that lasts; Events go after an hour.
const ConditionAssigned = manifests.ConditionPrefix + "AddressAssigned"

// Reasons of ConditionAssigned. Those of Events that tell the same are the same.
const (
	reasonAssigned = "Assigned"
	reasonNone     = "NoAddress"
	reasonNoPool   = "AddressOfNoPool"
	// reasonForeign: another load balancer gave it an address.
	reasonForeign = "AddressOfAnother"
	// reasonKept: it has an address, but not as it asks now.
	reasonKept = "KeepsAddress"
)

// maxMessage is how long the text of a condition may be: kubectl shows all of it.
const maxMessage = 4096

// conditionOf is what a Service that is ours is told, without a time.
func conditionOf(svc *corev1.Service, d Decision) *metav1.Condition {
	c := metav1.Condition{
		Type: ConditionAssigned, Status: metav1.ConditionTrue, Reason: reasonAssigned,
		Message: join(d.Addresses) + " of pool " + d.Pool, ObservedGeneration: svc.Generation,
	}
	if len(d.Addresses) == 0 {
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, reasonNone, ""
	}
	for _, p := range d.Problems[:min(len(d.Problems), 1)] {
		c.Message = shorten(noted(p), maxMessage)
		c.Reason = reasonOf(p, len(d.Addresses) > 0)
	}
	return &c
}

// reasonOf is the reason of a Problem of a Service, which has an address or has none.
func reasonOf(p manifests.Problem, has bool) string {
	switch {
	case p.Field == fieldStatus:
		return reasonNoPool
	case p.Field == fieldForeign:
		return reasonForeign
	case has:
		return reasonKept
	}
	return reasonNone
}

// noted is a Problem without its object, on which it is told.
func noted(p manifests.Problem) string {
	if p.Field == "" {
		return p.Text
	}
	return p.Field + ": " + p.Text
}

// shorten leaves out the middle of a text that is longer than most bytes: what is wrong stands at its beginning, and
// the fix at its end.
func shorten(text string, most int) string {
	const gap = " [...] "
	if len(text) <= most {
		return text
	}
	half := (most - len(gap) - utf8.UTFMax) / 2
	return text[:boundary(text, half)] + gap + text[boundary(text, len(text)-half):]
}

// boundary is the first beginning of a character at or after i.
func boundary(text string, i int) int {
	for i < len(text) && !utf8.RuneStart(text[i]) {
		i++
	}
	return i
}

// Explained says whether a Service has the condition.
func Explained(svc *corev1.Service) bool { return conditionIn(svc) != nil }

func conditionIn(svc *corev1.Service) *metav1.Condition {
	i := slices.IndexFunc(svc.Status.Conditions, func(c metav1.Condition) bool { return c.Type == ConditionAssigned })
	if i < 0 {
		return nil
	}
	return &svc.Status.Conditions[i]
}

// sameCondition does not look at the time, which follows from the rest.
func sameCondition(a, b *metav1.Condition) bool {
	if a == nil || b == nil {
		return a == b
	}
	return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Message, b.Message),
		cmp.Compare(a.ObservedGeneration, b.ObservedGeneration)) == 0
}

// patchOf is what makes the condition of a Service the wanted one in a strategic merge patch, which leaves those of others alone.
func patchOf(had, want *metav1.Condition, now metav1.Time) any {
	if want == nil {
		return map[string]string{"$patch": "delete", "type": ConditionAssigned}
	}
	c := *want
	c.LastTransitionTime = now
	if had != nil && had.Status == want.Status {
		c.LastTransitionTime = had.LastTransitionTime
	}
	return c
}
