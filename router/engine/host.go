package engine

import (
	"errors"
	"net/netip"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

var errHost = errors.New("invalid host")

// parseAuthority splits uri-host [":" port] (RFC 9110 section 7.2) and checks both. The
// host comes back in the one spelling that routing uses: lower case, no trailing dot,
// punycode, an IPv6 address without its brackets. It is authority's own memory where
// that has this spelling, else it is appended to dst.
func parseAuthority(dst, authority []byte) (host, port []byte, err error) {
	if len(authority) == 0 || len(authority) > 255+6 {
		return nil, nil, errHost
	}
	if authority[0] == '[' {
		return parseLiteral(authority)
	}
	host = authority
	for i, c := range authority {
		if c == ':' {
			host, port = authority[:i], authority[i+1:]
			if !isPort(port) {
				return nil, nil, errHost
			}
			break
		}
	}
	host, err = normalizeHost(dst, host)
	return host, port, err
}

// parseLiteral is parseAuthority for "[::1]:80".
func parseLiteral(authority []byte) (host, port []byte, err error) {
	end := 1
	for end < len(authority) && authority[end] != ']' {
		end++
	}
	if end == len(authority) {
		return nil, nil, errHost
	}
	addr, err := netip.ParseAddr(string(authority[1:end]))
	if err != nil || !addr.Is6() || addr.Zone() != "" {
		return nil, nil, errHost
	}
	if rest := authority[end+1:]; len(rest) > 0 {
		if rest[0] != ':' || !isPort(rest[1:]) {
			return nil, nil, errHost
		}
		port = rest[1:]
	}
	return []byte(addr.String()), port, nil
}

func normalizeHost(dst, host []byte) ([]byte, error) {
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	if len(host) == 0 {
		return nil, errHost
	}
	same, ascii := true, true
	for i, c := range host {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_':
		case c == '.':
			if i == 0 || i == len(host)-1 || host[i-1] == '.' { // an empty label
				return nil, errHost
			}
		case 'A' <= c && c <= 'Z':
			same = false
		case c >= 0x80:
			ascii = false
		default:
			return nil, errHost
		}
	}
	if !ascii {
		if !utf8.Valid(host) {
			return nil, errHost
		}
		name, err := idna.Lookup.ToASCII(string(host))
		if err != nil {
			return nil, errHost
		}
		return []byte(name), nil
	}
	if same {
		return host, nil
	}
	start := len(dst)
	for _, c := range host {
		dst = append(dst, lower(c))
	}
	return dst[start:], nil
}

// isPort accepts an empty port too, which RFC 3986 section 3.2.3 allows.
func isPort(b []byte) bool {
	if len(b) > 5 {
		return false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}
