package ingress

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/portico-ingress/portico/manifests"
)

// Reasons of problems, as they stand in Kubernetes Events.
const (
	reasonRejected      = "Rejected"
	reasonDuplicate     = "DuplicatePath"
	reasonClass         = "ClassMissing"
	reasonOtherClass    = "ClassNotServed"
	reasonService       = "ServiceUnusable"
	reasonSecret        = "SecretMissing"
	reasonCertificate   = "BadCertificate"
	reasonTLSHost       = "TLSHostNotUsed"
	reasonNeverServed   = "CertificateNotServed"
	reasonExpiry        = "CertificateExpiry"
	reasonAnnotation    = "BadAnnotation"
	reasonUnprotected   = "NotServedUnprotected"
	reasonExternalName  = "ExternalNameUnusable"
	reasonStatus        = "StatusContended"
	reasonNotSupported  = "NotSupported"
	reasonDefaultIssues = "DefaultUnusable"
)

// problem is a manifests.Problem with its one-word reason.
type problem struct {
	manifests.Problem
	reason string
}

// bucket says which decision some problems come from, so that they can be replaced
// together when it is made again.
type bucket struct {
	kind bucketKind
	name string
}

type bucketKind uint8

const (
	ofIngress  bucketKind = iota // class and rules, by Ingress
	ofBackends                   // what the rules lead to, by Ingress
	ofTLS                        // Secrets, by Ingress
	ofTLSHost                    // who has the certificate of a host, by host
	ofHost                       // duplicates, by host
	ofExternal                   // by external name
	ofStatus                     // by Ingress
	ofGlobal                     // settings, by name
)

// problems is all that is wrong at the moment.
type problems struct {
	buckets map[bucket][]problem
	changed bool
	sorted  []problem
}

func newProblems() *problems { return &problems{buckets: map[bucket][]problem{}} }

// set replaces what one decision had to say.
func (p *problems) set(kind bucketKind, name string, all []problem) {
	b := bucket{kind, name}
	if slices.Equal(p.buckets[b], all) {
		return
	}
	p.changed = true
	if len(all) == 0 {
		delete(p.buckets, b)
		return
	}
	p.buckets[b] = all
}

// all returns everything in order, and whether it differs from the last time. The slice is
// never written to again.
func (p *problems) all() (all []problem, changed bool) {
	if !p.changed {
		return p.sorted, false
	}
	p.changed = false
	all = make([]problem, 0, len(p.sorted))
	for _, b := range slices.Collect(maps.Values(p.buckets)) {
		all = append(all, b...)
	}
	sortProblems(all)
	p.sorted = slices.Compact(all)
	return p.sorted, true
}

func sortProblems(all []problem) { slices.SortFunc(all, compareProblems) }

func compareProblems(a, b problem) int {
	x, y := &a.Problem, &b.Problem
	return cmp.Or(
		x.Object.Compare(y.Object),
		strings.Compare(x.Field, y.Field),
		strings.Compare(x.Text, y.Text),
	)
}
