package svcproxy

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWhyAPodIsNotReady(t *testing.T) {
	condition := func(kind corev1.PodConditionType, reason, message string) corev1.PodStatus {
		return corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}}}
	}
	waiting := condition(corev1.PodReady, "ContainersNotReady", "")
	waiting.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 5m0s\nand more"},
	}}}
	now := metav1.Now()
	for want, p := range map[string]corev1.Pod{
		"":                          {Status: corev1.PodStatus{Phase: corev1.PodRunning}},
		"is Pending":                {Status: corev1.PodStatus{Phase: corev1.PodPending}},
		"is terminating":            {ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &now}, Status: waiting},
		"is over (Failed: Evicted)": {Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}},
		"is not scheduled: Unschedulable: 0/2 nodes are available":  {Status: condition(corev1.PodScheduled, "Unschedulable", "0/2 nodes are available")},
		"is not ready: ContainersNotReady: unready containers: [c]": {Status: condition(corev1.PodReady, "ContainersNotReady", "unready containers: [c]")},
		"has container c waiting: CrashLoopBackOff: back-off 5m0s":  {Status: waiting},
	} {
		if got := podState(&p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestNearestLabel(t *testing.T) {
	pods := func(labels ...map[string]string) (all []*corev1.Pod) {
		for _, l := range labels {
			all = append(all, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: l}})
		}
		return all
	}
	for _, c := range []struct {
		name string
		pods []*corev1.Pod
		want string
	}{
		{"none", nil, ""},
		{"nothing like it", pods(map[string]string{"x": "y"}), ""},
		{"a value one letter away goes before many Pods", pods(map[string]string{"app": "webb"}, map[string]string{"app": "api"}, map[string]string{"app": "api"}), "app=webb on 1 Pod"},
		{"of two the one on more Pods", pods(map[string]string{"app": "wex"}, map[string]string{"app": "wey"}, map[string]string{"app": "wey"}), "app=wey on 2 Pods"},
		{"the key goes before the value", pods(map[string]string{"ap": "web"}, map[string]string{"app": "else"}), "app=else on 1 Pod"},
		{"another key with the value", pods(map[string]string{"app.kubernetes.io/name": "web"}, map[string]string{"ap": "web"}), "ap=web on 1 Pod"},
	} {
		if got := nearestLabel("app", "web", c.pods); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"web", "web", 0}, {"web", "wob", 1}, {"web", "bew", 2}, {"kitten", "sitting", 3}} {
		if got, back := editDistance(c.a, c.b), editDistance(c.b, c.a); got != c.want || back != c.want {
			t.Errorf("%s, %s: %d and %d, want %d", c.a, c.b, got, back, c.want)
		}
	}
}
