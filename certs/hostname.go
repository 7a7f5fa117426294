package certs

import "strings"

// normalHost is the form hosts are compared in: lower case, no trailing dot. It returns host itself, without
// allocating, when it is in that form already. International names are compared as they come: Kubernetes
// accepts them in their ASCII form (xn--...) only, and so does the SNI extension (RFC 6066, section 3).
func normalHost(host string) string {
	host = strings.TrimSuffix(host, ".")
	for i := range len(host) {
		if isUpper(host[i]) {
			return lower(host)
		}
	}
	return host
}

// lower is strings.ToLower for ASCII alone: Unicode folds other letters into ours (the Kelvin sign into k).
func lower(host string) string {
	b := []byte(host)
	for i, c := range b {
		if isUpper(c) {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// parentOf cuts the first label off a host: "x.a.b" has the parent "a.b". A host of one label, or one whose
// first label is empty, has none.
func parentOf(host string) (parent string, ok bool) {
	i := strings.IndexByte(host, '.')
	if i <= 0 || i == len(host)-1 {
		return "", false
	}
	return host[i+1:], true
}

// wildcardParent is the parent a pattern "*.parent" stands over. A star anywhere else is an ordinary byte,
// as it is in Kubernetes and in crypto/x509.
func wildcardParent(pattern string) (parent string, ok bool) {
	if !strings.HasPrefix(pattern, "*.") {
		return "", false
	}
	return parentOf(pattern)
}
