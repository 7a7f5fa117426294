package manifests

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// question is something asked of the API server again and again.
type question struct {
	verb      string
	resource  string
	namespace string
	name      string // of one object; may be empty
}

// String reads like "list secrets in namespace a".
func (q question) String() string {
	switch {
	case q.name != "":
		return fmt.Sprintf("%s %s %s/%s", q.verb, q.resource, q.namespace, q.name)
	case q.namespace != "":
		return fmt.Sprintf("%s %s in namespace %s", q.verb, q.resource, q.namespace)
	}
	return fmt.Sprintf("%s %s in all namespaces", q.verb, q.resource)
}

// answer is what an error means.
type answer int

const (
	answered    answer = iota
	denied             // the Role or ClusterRole does not grant it
	unreachable        // anything else, with the API server or on the way to it
)

// access knows which questions the API server does not answer, and tells a person once:
// the log when that begins and ends, and a Problem where a permission is missing. Errors
// are never more than that: what has been read stays.
type access struct {
	store *Store
	log   *zap.Logger

	mu     sync.Mutex
	denied map[question]struct{}
	failed map[question]error
}

func newAccess(store *Store, log *zap.Logger) *access {
	return &access{store: store, log: log, denied: map[question]struct{}{}, failed: map[question]error{}}
}

// report takes the outcome of one question. Not found is an answer, and so is that a
// resourceVersion has expired.
func (a *access) report(q question, err error) answer {
	got := judge(err)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setFailed(q, got, err)
	a.setDenied(q, got, err)
	return got
}

func judge(err error) answer {
	switch {
	case err == nil, apierrors.IsNotFound(err), apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		return answered
	case apierrors.IsForbidden(err):
		return denied
	}
	return unreachable
}

// forget drops what is known about questions that nobody asks any more.
func (a *access) forget(questions ...question) {
	for _, q := range questions {
		a.report(q, nil)
	}
}

func (a *access) setFailed(q question, got answer, err error) {
	before := len(a.failed)
	if got == unreachable {
		a.failed[q] = err
	} else {
		delete(a.failed, q)
	}
	switch {
	case before == 0 && len(a.failed) > 0:
		a.log.Warn("Kubernetes API does not answer: serving goes on with what is known", zap.Stringer("request", q), zap.Error(err))
	case before > 0 && len(a.failed) == 0:
		a.log.Info("Kubernetes API answers again")
	}
}

func (a *access) setDenied(q question, got answer, err error) {
	_, before := a.denied[q]
	switch {
	case got == denied && !before:
		a.denied[q] = struct{}{}
	case got == answered && before:
		delete(a.denied, q)
	default:
		return
	}
	ref := Ref{Kind: KindAccess, Namespace: q.namespace, Name: q.resource}
	like := a.deniedLike(q)
	switch {
	case got == denied && len(like) == 1:
		a.log.Warn("permission is missing", zap.Stringer("request", q), zap.Error(err))
	case got == answered && len(like) == 0:
		a.log.Info("permission is there now, or not needed any more", zap.Stringer("request", q))
	}
	a.store.SetProblems(ref, a.problems(q)...)
}

// deniedLike are the questions that differ from q in the name of the object only, in order.
func (a *access) deniedLike(q question) []question {
	var like []question
	for d := range a.denied {
		if d.verb == q.verb && d.resource == q.resource && d.namespace == q.namespace {
			like = append(like, d)
		}
	}
	slices.SortFunc(like, func(a, b question) int { return strings.Compare(a.name, b.name) })
	return like
}

// problems are one for each verb that is missing on the resource of q.
func (a *access) problems(q question) []Problem {
	var all []Problem
	for _, q.verb = range []string{"get", "list", "watch"} {
		like := a.deniedLike(q)
		if len(like) == 0 {
			continue
		}
		what := like[0].String()
		if len(like) > 1 {
			what += fmt.Sprintf(" and %d more", len(like)-1)
		}
		all = append(all, Problem{
			Object: Ref{Kind: KindAccess, Namespace: q.namespace, Name: q.resource},
			Field:  q.verb,
			Text: fmt.Sprintf("Portico may not %s and does without, or waits; grant the verb %q on %s to its ServiceAccount, it keeps trying",
				what, q.verb, q.resource),
		})
	}
	return all
}
