package annotation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portico-ingress/portico/router"
)

// loadBalance chooses among the endpoints.
var loadBalance = policyAnnotation(
	Annotation{
		Keys:    both("load-balance"),
		Help:    "How requests are spread: round_robin, ewma (the shorter expected wait of two), or least_outstanding (fewer requests in flight of two).",
		Default: "round_robin",
	},
	word([]string{"round_robin", "ewma", "least_outstanding"}, router.RoundRobin, router.PeakEWMA, router.LeastOutstanding),
	func(p *router.Policy, b router.Balance) { p.Balance = b },
)

// upstreamHashBy sends equal keys to the same endpoint. It wins over load-balance.
var upstreamHashBy = policyAnnotation(
	Annotation{
		Keys:    both("upstream-hash-by"),
		Help:    "Key of consistent hashing with bounded load: text and variables of nginx (" + strings.Join(hashVariables(), ", ") + "); wins over load-balance.",
		Default: "",
	},
	parseHashBy,
	func(p *router.Policy, by router.HashBy) {
		if by != (router.HashBy{}) {
			p.Balance, p.HashBy = router.ConsistentHash, by
		}
	},
)

// slowStart spares endpoints that have just come.
var slowStart = policyAnnotation(
	Annotation{
		Keys:    ours("slow-start"),
		Help:    "How long the share of an endpoint that joins others rises to its full one.",
		Default: "0s",
	},
	span(0, time.Hour),
	func(p *router.Policy, d time.Duration) { p.SlowStart = d },
)

var hashPlain = map[string]router.HashKind{
	"binary_remote_addr": router.HashClient, "remote_addr": router.HashClient,
	"host": router.HashHost, "http_host": router.HashHost,
	"request_uri": router.HashURI, "uri": router.HashPath, "document_uri": router.HashPath,
	"args": router.HashQuery, "query_string": router.HashQuery,
}

var hashNamed = []struct {
	prefix string
	kind   router.HashKind
}{{"http_", router.HashHeader}, {"cookie_", router.HashCookie}, {"arg_", router.HashArgument}}

func hashVariables() []string {
	var all []string
	for name := range hashPlain {
		all = append(all, "$"+name)
	}
	slices.Sort(all)
	for _, n := range hashNamed {
		all = append(all, "$"+n.prefix+"NAME")
	}
	return all
}

const maxHashBy = 256

// parseHashBy reads text with variables, as nginx writes them: $name or ${name}.
func parseHashBy(value string) (by router.HashBy, err error) {
	if len(value) > maxHashBy || !isPlain(value, "") {
		return by, fmt.Errorf("is longer than %d characters, or has others than printable ones", maxHashBy)
	}
	n, variables := 0, 0
	for rest := value; rest != ""; n++ {
		if n == router.MaxHashParts {
			return router.HashBy{}, fmt.Errorf("has more than %d parts", router.MaxHashParts)
		}
		if rest[0] != '$' {
			text, _, _ := strings.Cut(rest, "$")
			by[n], rest = router.HashPart{Kind: router.HashText, Name: text}, rest[len(text):]
			continue
		}
		var name string
		if name, rest, err = cutVariable(rest[1:]); err != nil {
			return router.HashBy{}, err
		}
		if by[n], err = hashVariable(name); err != nil {
			return router.HashBy{}, err
		}
		variables++
	}
	if value != "" && variables == 0 {
		return router.HashBy{}, errors.New("has no variable, so that all requests would go to one endpoint")
	}
	return by, nil
}

// cutVariable reads the name after the dollar sign.
func cutVariable(s string) (name, rest string, err error) {
	braced, ok := strings.CutPrefix(s, "{")
	if ok {
		if name, rest, ok = strings.Cut(braced, "}"); !ok {
			return "", "", errors.New(`has a "${" without "}"`)
		}
		return name, rest, nil
	}
	end := strings.IndexFunc(s, func(c rune) bool { return !isVariable(c) })
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:], nil
}

func isVariable(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}

func hashVariable(name string) (router.HashPart, error) {
	if kind, ok := hashPlain[name]; ok {
		return router.HashPart{Kind: kind}, nil
	}
	for _, n := range hashNamed {
		suffix, ok := strings.CutPrefix(name, n.prefix)
		if !ok || suffix == "" || strings.ContainsFunc(suffix, func(c rune) bool { return !isVariable(c) }) {
			continue
		}
		if n.kind == router.HashHeader {
			suffix = strings.ReplaceAll(strings.ToLower(suffix), "_", "-")
		}
		return router.HashPart{Kind: n.kind, Name: suffix}, nil
	}
	return router.HashPart{}, fmt.Errorf("has the variable %q, which is not supported; supported are %s", "$"+name, strings.Join(hashVariables(), ", "))
}
