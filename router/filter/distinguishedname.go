package filter

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
)

// attributeNames are the short names that OpenSSL has for the attributes of RFC 4519 and
// their like.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L",
	"2.5.4.8": "ST", "2.5.4.9": "street", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title",
	"2.5.4.13": "description", "2.5.4.17": "postalCode", "2.5.4.42": "GN", "2.5.4.43": "initials",
	"2.5.4.97":                   "organizationIdentifier",
	"0.9.2342.19200300.100.1.1":  "UID",
	"0.9.2342.19200300.100.1.25": "DC",
	"1.2.840.113549.1.9.1":       "emailAddress",
}

// distinguishedName writes a name as nginx does in $ssl_client_s_dn (RFC 2253): the last
// attribute first, all that is not plain ASCII escaped. It is empty for what is no name.
func distinguishedName(raw []byte) []byte {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &name); err != nil || len(rest) > 0 {
		return nil
	}
	var b []byte
	for i, set := range slices.Backward(name) {
		if i < len(name)-1 {
			b = append(b, ',')
		}
		for j, attribute := range set {
			if j > 0 {
				b = append(b, '+')
			}
			b = appendAttribute(b, attribute)
		}
	}
	return b
}

func appendAttribute(b []byte, a pkix.AttributeTypeAndValue) []byte {
	oid := a.Type.String()
	value, isText := a.Value.(string)
	name, known := attributeNames[oid]
	if known && isText {
		return appendValue(append(append(b, name...), '='), value)
	}
	der, err := asn1.Marshal(a.Value)
	if err != nil {
		der = nil // an attribute without a value that anybody could read
	}
	return fmt.Appendf(b, "%s=#%X", oid, der)
}

// appendValue escapes a value as RFC 2253 section 2.4 has it, and controls and what is not
// ASCII, too, so that it can stand in a field.
func appendValue(b []byte, v string) []byte {
	for i := range len(v) {
		c := v[i]
		switch {
		case c < 0x20 || c >= 0x7f:
			b = fmt.Appendf(b, `\%02X`, c)
			continue
		case strings.IndexByte(`,+"\<>;`, c) >= 0,
			i == 0 && (c == '#' || c == ' '),
			i == len(v)-1 && c == ' ':
			b = append(b, '\\')
		}
		b = append(b, c)
	}
	return b
}
