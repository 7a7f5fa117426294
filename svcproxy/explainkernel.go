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
	// Plane is "userspace", or "" for the kernel.
	Plane    string `json:"plane,omitempty"`
	Compared bool   `json:"compared"`
	Agrees   bool   `json:"agrees"`
	// Text is "agrees", that it does not, or why it was not asked.
	Text string `json:"text"`
	// Differences are what the kernel would do otherwise.
	Differences []string `json:"differences,omitempty"`
	// Remembered is the endpoint that the client had last, and goes to again; only with affinity.
	Remembered string `json:"remembered,omitempty"`
	// Elements are those of the kernel that decide, as "map [key] : data".
	Elements []string `json:"elements,omitempty"`
}

// Compare follows the packet of an Explanation through what is live, and writes into it whether that
// comes to the same.
func (x *Explainer) Compare(e *Explanation, live Live) {
	e.Kernel = Comparison{Compared: true, Agrees: true, Text: "agrees"}
	k := &e.Kernel
	help := "a running portico svcproxy repairs it"
	if x.Userspace {
		k.Plane, help = "userspace", "/api/v1/problems has what this host cannot serve"
	}
	k.compare(x, e, live)
	if len(k.Differences) > 0 {
		k.Agrees, k.Text = false, "differs from what the objects say; "+help
	}
}

func (k *Comparison) compare(x *Explainer, e *Explanation, live Live) {
	p := e.Packet
	got := live.Trace(nft.Packet{
		Protocol: protocolNumber(p.Protocol), From: p.From, To: p.To, FromNode: x.own(p.From), ToNode: x.own(p.To.Addr()),
	})
	want := e.fate
	k.Elements = got.Met
	if got.Remembered.IsValid() {
		k.Remembered = got.Remembered.String()
	}
	if damage := live.Damage(); damage != "" {
		k.differ("%s", damage)
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
	if !x.Userspace && !slices.Equal(got.Hairpins, want.Hairpins) {
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
