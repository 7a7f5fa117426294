package engine

import "errors"

// Errors of NormalizePath. Each names a spelling that two servers may read differently,
// so that passing it on would let a client reach a path other than the one matched.
var (
	errPathStart     = errors.New("path does not begin with a slash")
	errPathEscape    = errors.New("malformed percent-escape in the path")
	errPathNUL       = errors.New("NUL in the path")
	errPathControl   = errors.New("control character or space in the path")
	errPathBackslash = errors.New("backslash in the path")
	errPathAbove     = errors.New("path climbs above its root")
	errPathDotSlash  = errors.New("dot segment beside an encoded slash")
	errPathDotParam  = errors.New("dot segment with a parameter")
)

// NormalizePath gives the one spelling of a path that matching, filters, logs and the
// upstream all use (RFC 3986 section 6.2.2): escapes of unreserved characters are
// decoded, the other escapes are written in upper case, bytes that must be escaped are,
// and dot segments are resolved. Empty segments ("//") are kept, since some applications
// give them a meaning; only where dot segments have to be resolved are they merged first,
// as nginx does. An encoded slash stays encoded. What has two readings is an error.
//
// The result is path itself if that is in normal form, else it is appended to dst.
func NormalizePath(dst, path []byte) ([]byte, error) {
	if len(path) == 0 || path[0] != '/' {
		return nil, errPathStart
	}
	if isNormalPath(path) {
		return path, nil
	}
	start := len(dst)
	dst, err := decodePath(dst, path)
	if err != nil {
		return nil, err
	}
	out := dst[start:]
	if err := checkSegments(out); err != nil {
		return nil, err
	}
	if !hasDotSegment(out) {
		return out, nil
	}
	return resolveDots(out)
}

// pathClass sorts the bytes of a path.
const (
	pathPlain     = iota // stands for itself
	pathEncode           // must be written as an escape
	pathPercent          // begins an escape
	pathBackslash        // refused
	pathControl          // refused
)

var pathClasses = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c <= ' ' || c == 0x7f:
			t[c] = pathControl
		case c == '%':
			t[c] = pathPercent
		case c == '\\':
			t[c] = pathBackslash
		case c >= 0x80:
			t[c] = pathEncode
		}
	}
	for _, c := range "\"<>^`{|}?#" { // a path has no query and no fragment
		t[c] = pathEncode
	}
	return t
}()

// isNormalPath is the quick way out for nearly every request.
func isNormalPath(path []byte) bool {
	before := byte(0)
	for _, c := range path {
		if pathClasses[c] != pathPlain || c == '.' && before == '/' {
			return false
		}
		before = c
	}
	return true
}

// decodePath brings escapes to their one spelling.
func decodePath(dst, path []byte) ([]byte, error) {
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch pathClasses[c] {
		case pathPlain:
			dst = append(dst, c)
		case pathEncode:
			dst = appendEscape(dst, c)
		case pathPercent:
			if i+2 >= len(path) {
				return nil, errPathEscape
			}
			high, low := unhex(path[i+1]), unhex(path[i+2])
			if high < 0 || low < 0 {
				return nil, errPathEscape
			}
			i += 2
			switch c = byte(high<<4 | low); {
			case c == 0:
				return nil, errPathNUL
			case isUnreserved(c):
				dst = append(dst, c)
			default:
				dst = appendEscape(dst, c)
			}
		case pathBackslash:
			return nil, errPathBackslash
		default:
			return nil, errPathControl
		}
	}
	return dst, nil
}

// checkSegments refuses segments that some servers take for dot segments: "..%2Fadmin"
// after decoding the slash, "..;x" after cutting the parameter.
func checkSegments(path []byte) error {
	for rest := path[1:]; ; {
		segment := rest
		end := -1
		for i, c := range rest {
			if c == '/' {
				segment, end = rest[:i], i
				break
			}
		}
		if err := checkSegment(segment); err != nil {
			return err
		}
		if end < 0 {
			return nil
		}
		rest = rest[end+1:]
	}
}

func checkSegment(s []byte) error {
	piece := 0 // where the piece between encoded slashes begins
	for i := 0; i <= len(s); i++ {
		slash := isEscape(s, i, '2', 'F') || isEscape(s, i, '5', 'C')
		if !slash && i < len(s) {
			continue
		}
		name := beforeParameter(s[piece:i])
		switch {
		case !isDots(name):
		case len(name) < i-piece:
			return errPathDotParam
		case slash, piece > 0:
			return errPathDotSlash
		}
		if slash {
			i += 2
			piece = i + 1
		}
	}
	return nil
}

// beforeParameter is what comes before the first semicolon, encoded or not.
func beforeParameter(s []byte) []byte {
	for i, c := range s {
		if c == ';' || isEscape(s, i, '3', 'B') {
			return s[:i]
		}
	}
	return s
}

// isEscape reports whether s[i:] begins with the escape of these two digits.
func isEscape(s []byte, i int, high, low byte) bool {
	return i+2 < len(s) && s[i] == '%' && s[i+1] == high && s[i+2] == low
}

func isDots(s []byte) bool {
	return len(s) == 1 && s[0] == '.' || len(s) == 2 && s[0] == '.' && s[1] == '.'
}

func hasDotSegment(path []byte) bool {
	start := 1
	for i := 1; i <= len(path); i++ {
		if i == len(path) || path[i] == '/' {
			if isDots(path[start:i]) {
				return true
			}
			start = i + 1
		}
	}
	return false
}

// resolveDots removes dot segments in place (RFC 3986 section 5.2.4), merging empty
// segments on the way. Unlike there, climbing above the root is an error, as in nginx.
func resolveDots(path []byte) ([]byte, error) {
	out := path[:0]
	start := 1
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		segment := path[start:i]
		last := i == len(path)
		start = i + 1
		switch {
		case len(segment) == 0:
			if last {
				out = append(out, '/')
			}
		case len(segment) == 1 && segment[0] == '.':
			if last {
				out = append(out, '/')
			}
		case isDots(segment):
			if len(out) == 0 {
				return nil, errPathAbove
			}
			for out[len(out)-1] != '/' {
				out = out[:len(out)-1]
			}
			out = out[:len(out)-1]
			if last {
				out = append(out, '/')
			}
		default:
			out = append(out, '/')
			out = append(out, segment...)
		}
	}
	return out, nil
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

func appendEscape(dst []byte, c byte) []byte {
	const digits = "0123456789ABCDEF"
	return append(dst, '%', digits[c>>4], digits[c&15])
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
