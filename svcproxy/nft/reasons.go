package nft

import (
	"strings"

	"golang.org/x/sys/unix"
)

// Verdict of Reasons: what a rule does with a packet.
const (
	verdictDrop   = "drop"
	verdictReject = "reject"
)

// Reasons that are not of the kernel alone.
var (
	// SourceRanges: who came is in none of them. NoLocalEndpoint: it came from outside, and the traffic policy is
	// Local. Policy: whoever came, it is Local.
	SourceRanges    = Reason{verdictDrop, "source-ranges"}
	NoLocalEndpoint = Reason{verdictDrop, "no-local-endpoint"}
	Policy          = Reason{verdictDrop, "policy"}
)

// reasons are the rules that end a packet, by what they are for.
var reasons = map[string]Reason{
	"source ranges":                SourceRanges,
	"no local endpoint":            NoLocalEndpoint,
	"dropped by policy":            Policy,
	"changed meanwhile":            {verdictDrop, "changed-meanwhile"},
	"cluster IP of nobody":         {verdictDrop, "unused-cluster-ip"},
	"invalid segments":             {verdictDrop, "invalid-segment"},
	"unknown port of a cluster IP": {verdictReject, "unknown-port"},
}

// Reason says what became of packets that went nowhere, and why.
type Reason struct {
	// Verdict is "drop" or "reject".
	Verdict string
	// Text is like "source-ranges", or "unknown-port" for a port that a cluster IP does not have. The rejects
	// of Services without an endpoint are in Counters.
	Text string
}

// Reasons counts the packets that went nowhere, since the table was made. Repeated ones count again.
func (p *Plane) Reasons() (map[Reason]uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[Reason]uint64{}
	for _, r := range reasons {
		all[r] = 0
	}
	if p.table == "" {
		return all, nil
	}
	err := p.dump(unix.NFT_MSG_GETRULE, p.table, "", func(m message) {
		if r, n, ok := parseReason(p.table, m.body[genHead:]); ok {
			all[r] += n
		}
	})
	return all, err
}

// Denied counts for each Service, by its name, the first packets that its source ranges kept out, since the
// table was made. Counters has them, too, as Kind says. Of a great many Services some are not counted.
func (p *Plane) Denied() (map[string]uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]uint64{}
	if p.table == "" {
		return all, nil
	}
	names := map[uint32]string{}
	for name, e := range p.entries {
		names[e.id] = name
	}
	for _, f := range p.conn.layout.families {
		err := p.eachKernelElement(p.table, f.sets+denied, func(e element, c Counters) {
			if e.catchAll() {
				return
			}
			if name, ok := names[native.Uint32([]byte(e.key))]; ok {
				all[name] += c.Connections
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// parseReason reads the counter of a rule; it is false for the rules of others, and for those that end nothing.
func parseReason(table string, b []byte) (r Reason, n uint64, ok bool) {
	for typ, v := range attrs(b) {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			if attrText(v) != table {
				return r, 0, false
			}
		case unix.NFTA_RULE_USERDATA:
			why, _, _ := strings.Cut(commentOf(v), " #")
			r, ok = reasons[why]
		case unix.NFTA_RULE_EXPRESSIONS:
			n = countOf(v)
		}
	}
	return r, n, ok
}

// countOf is that of the counter among the expressions of a rule.
func countOf(list []byte) uint64 {
	for _, e := range attrs(list) {
		name := ""
		for typ, v := range attrs(e) {
			if typ == unix.NFTA_EXPR_NAME {
				name = attrText(v)
			}
		}
		if name == "counter" {
			return parseCounter(e).Connections
		}
	}
	return 0
}
