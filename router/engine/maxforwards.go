package engine

import "strconv"

// forwardsKnown is the largest Max-Forwards that is sent on.
const forwardsKnown = 255

// countForwards follows Max-Forwards, by which a client asks one proxy after the other (RFC 9110
// section 7.6.2): at 0 a request goes no further. It is for OPTIONS alone, as there is no TRACE here.
func (r *Request) countForwards() *Refusal {
	if !r.IsMethod("OPTIONS") {
		return nil
	}
	seen := false
	for f := range r.Fields.All() {
		if !equalFold(f.Name, "Max-Forwards") {
			continue
		}
		if seen || !isDigits(f.Value) {
			return badRequest("Max-Forwards is malformed or repeated")
		}
		seen = true
		n, ok := parseLength(f.Value)
		if !ok || n > forwardsKnown {
			n = forwardsKnown + 1
		}
		if r.last = n == 0; !r.last {
			var digits [20]byte
			f.Value = r.Fields.keep(strconv.AppendInt(digits[:0], n-1, 10))
		}
	}
	return nil
}

// ForServer reports a request that is about this server and not about a resource (RFC 9110
// sections 9.3.7 and 7.6.2): "OPTIONS *", and one that may not be sent on. It is to be answered, and
// not forwarded.
func (r *Request) ForServer() bool { return r.last || len(r.Path) > 0 && r.Path[0] == '*' }
