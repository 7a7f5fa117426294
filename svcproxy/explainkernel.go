package svcproxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/portico-ingress/portico/svcproxy/nft"
)

// Comparison is what the kernel says to an Explanation. The zero value: it was not asked.
type Comparison struct {
	Compared bool `json:"compared"`
	Agrees   bool `json:"agrees"`
	// Text is "agrees", that it does not, or why it was not asked.
	Text string `json:"text"`
	// Differences are what the kernel would do otherwise.
	Differences []string `json:"differences,omitempty"`
	// Remembered is the endpoint that the client had last, and goes to again; only with affinity.
	Remembered string `json:"remembered,omitempty"`
	// Elements are those of the kernel that decide, as "map [key] : data".
	Elements []string `json:"elements,omitempty"`
}

// Compare follows the packet of an Explanation through what the kernel has, and writes into it
// whether that comes to the same.
func (x *Explainer) Compare(e *Explanation, s *nft.Snapshot) {
	e.Kernel = Comparison{Compared: true, Text: "agrees"}
	k := &e.Kernel
	if s.Table == "" {
		k.Differences = []string{"it has no table of Portico's: portico svcproxy has not run in this network namespace, or somebody has removed it"}
	} else {
		k.compare(x, e, s)
	}
	if k.Agrees = len(k.Differences) == 0; !k.Agrees {
		k.Text = "differs from what the objects say; a running portico svcproxy repairs it"
	}
}

func (k *Comparison) compare(x *Explainer, e *Explanation, s *nft.Snapshot) {
	p := e.Packet
	got := s.Trace(nft.Packet{
		Protocol: protocolNumber(p.Protocol), From: p.From, To: p.To, FromNode: x.own(p.From), ToNode: x.own(p.To.Addr()),
	})
	want := e.fate
	k.Elements = got.Met
	if got.Remembered.IsValid() {
		k.Remembered = got.Remembered.String()
	}
	if s.Foreign != "" {
		k.differ("the rules of table inet %s are not what they should be: %s", s.Table, s.Foreign)
	}
	for _, m := range got.Missing {
		k.differ("missing: %s", m)
	}
	if got.Verdict != want.Verdict {
		k.differ("it would %s: %s", kernelWord[got.Verdict], cmp.Or(strings.Join(got.Met, ", "), "it knows nothing of this address"))
		return
	}
	less, more := missingFrom(want.Endpoints, got.Endpoints), missingFrom(got.Endpoints, want.Endpoints)
	if len(less) > 0 {
		k.differ("it does not send anybody to %v", less)
	}
	if len(more) > 0 {
		k.differ("it sends to %v, too", more)
	}
	if got.Masqueraded != want.Masqueraded {
		k.differ("it would masquerade: %v, wanted: %v; if --cluster-cidr is not what portico svcproxy runs with, give the same", got.Masqueraded, want.Masqueraded)
	}
	if !slices.Equal(got.Hairpins, want.Hairpins) {
		k.differ("it would masquerade on the way back to the client itself: %v, wanted: %v", got.Hairpins, want.Hairpins)
	}
	if got.Affinity != want.Affinity {
		k.differ("its affinity is %v, wanted %v", got.Affinity, want.Affinity)
	}
}

var kernelWord = map[nft.Verdict]string{
	nft.Pass: "pass it on", nft.Translate: "send it to an endpoint", nft.Refuse: "reject it", nft.Discard: "drop it",
}

func (k *Comparison) differ(format string, args ...any) {
	k.Differences = append(k.Differences, fmt.Sprintf(format, args...))
}

func missingFrom(all, from []netip.AddrPort) (missing []netip.AddrPort) {
	for _, a := range all {
		if !slices.Contains(from, a) {
			missing = append(missing, a)
		}
	}
	return missing
}
