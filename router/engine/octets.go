package engine

import (
	"encoding/binary"
	"slices"
)

// isTokenByte has the characters of a token (RFC 9110 section 5.6.2).
var isTokenByte = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()

func isToken(b []byte) bool {
	for _, c := range b {
		if !isTokenByte[c] {
			return false
		}
	}
	return len(b) > 0
}

// isControl reports the bytes that may not stand in a field value: all controls but HTAB.
func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

// hasControl is isControl for any byte of b, eight bytes at a time: field values are most
// of what a proxy reads, and next to none has a byte below the space.
func hasControl(b []byte) bool {
	const (
		lows  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	for len(b) >= 8 {
		v := binary.LittleEndian.Uint64(b)
		below := (v - lows*' ') &^ v // high bit set where a byte is below the space
		del := v ^ lows*0x7f         // zero where a byte is DEL
		isDel := (del - lows) &^ del // high bit set where del is zero
		if (below|isDel)&highs != 0 && anyControl(b[:8]) {
			return true
		}
		b = b[8:]
	}
	return anyControl(b)
}

func anyControl(b []byte) bool { return slices.ContainsFunc(b, isControl) }

// isVisible reports that b has neither controls nor spaces.
func isVisible(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c <= ' ' || c == 0x7f })
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// equalFold compares ASCII in any case.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if b[i] != s[i] && lower(b[i]) != lower(s[i]) {
			return false
		}
	}
	return true
}

func equalFoldBytes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// trimOWS cuts spaces and tabs from both ends (RFC 9110 section 5.6.3).
func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

func isDigits(b []byte) bool {
	return len(b) > 0 && !slices.ContainsFunc(b, func(c byte) bool { return c < '0' || c > '9' })
}

// maxZeros is how many zeros may stand in front of a number. They are allowed without end; this
// is more than anybody has sent in earnest.
const maxZeros = 64

// cutZeros cuts the zeros in front of a number, but for the last digit.
func cutZeros(b []byte) []byte {
	for n := 0; n < maxZeros && len(b) > 1 && b[0] == '0'; n++ {
		b = b[1:]
	}
	return b
}

// parseLength reads 1*DIGIT (RFC 9110 section 8.6) without overflow.
func parseLength(b []byte) (n int64, ok bool) {
	if b = cutZeros(b); len(b) == 0 || len(b) > 18 || len(b) > 1 && b[0] == '0' { // 10^18 - 1 bytes are enough, and fit
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
