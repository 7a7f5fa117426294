package svcproxy

import (
	"fmt"
	"slices"

	"github.com/portico-ingress/portico/svcproxy/outlier"
)

// defaultEjectionPercent is how many of the endpoints that a traffic policy chooses from are
// skipped at most, if Rules do not say.
const defaultEjectionPercent = 50

// skipped begins the Reason of an endpoint that is left out.
const skipped = "skipped"

// skipFailing leaves out endpoints that fail, for each of the traffic policies independently: at
// most so many percent of those it chooses from, but one is always allowed, and the last one is
// always used. It comes after categorize, and readiness stays what it is.
func skipFailing(all []Endpoint, failing []outlier.Failing, percent int) {
	if len(failing) == 0 {
		return
	}
	if percent == 0 {
		percent = defaultEjectionPercent
	}
	cluster, local := 0, 0
	for i := range all {
		cluster += number(all[i].Cluster)
		local += number(all[i].ForLocal)
	}
	roomCluster, roomLocal := room(cluster, percent), room(local, percent)
	for _, f := range failing {
		at := slices.IndexFunc(all, func(e Endpoint) bool { return e.Addr == f.Addr })
		if at < 0 || !all[at].Cluster && !all[at].ForLocal {
			continue
		}
		e := &all[at]
		left := take(&e.Cluster, &roomCluster)
		left = take(&e.ForLocal, &roomLocal) || left
		why := fmt.Sprintf("%s, until %s UTC", f.Why, f.Until.UTC().Format("15:04:05"))
		switch {
		case left && !e.Cluster && !e.ForLocal:
			e.Why = Reason(skipped + ": " + why)
		case left && e.Cluster:
			e.Why = Reason(skipped + " for traffic policy Local only: " + why)
		case left:
			e.Why = Reason(skipped + " for traffic policy Cluster only: " + why)
		default:
			e.Why += Reason(fmt.Sprintf(", and fails (%s), but is used: no more than %d%% of the endpoints are skipped, and never the last", f.Why, percent))
		}
	}
}

// room is how many of n may be skipped.
func room(n, percent int) int { return max(min(max(n*percent/100, 1), n-1), 0) }

// take sets used to false if there is room for it.
func take(used *bool, room *int) bool {
	if !*used || *room == 0 {
		return false
	}
	*used = false
	*room--
	return true
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
