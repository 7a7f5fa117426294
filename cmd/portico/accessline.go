package main

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// accessLine is one JSON object, written member by member. An encoder that knows any type
// costs twice as much, and every request pays for it.
type accessLine []byte

func newAccessLine() *accessLine {
	l := make(accessLine, 0, 1<<10)
	return &l
}

func (l accessLine) name(name string) accessLine {
	if len(l) > 1 {
		l = append(l, ',')
	}
	l = append(l, '"')
	l = append(l, name...)
	return append(l, '"', ':')
}

func (l accessLine) int(name string, n int64) accessLine {
	return strconv.AppendInt(l.name(name), n, 10)
}

func (l accessLine) time(name string, t time.Time) accessLine {
	l = append(l.name(name), '"')
	return append(t.AppendFormat(l, time.RFC3339Nano), '"')
}

// duration is written in seconds.
func (l accessLine) duration(name string, d time.Duration) accessLine {
	l = strconv.AppendInt(l.name(name), int64(d/time.Second), 10)
	rest := d % time.Second
	if rest <= 0 {
		return l
	}
	l = append(l, '.')
	for digit := time.Second / 10; rest > 0; digit /= 10 {
		l = append(l, byte('0'+rest/digit))
		rest %= digit
	}
	return l
}

// appendText adds a member, unless it is empty.
func appendText[T string | []byte](l accessLine, name string, s T) accessLine {
	if len(s) == 0 {
		return l
	}
	return append(appendEscaped(append(l.name(name), '"'), s), '"')
}

// appendEscaped adds s as it stands within quotation marks.
func appendEscaped[T string | []byte](l accessLine, s T) accessLine {
	plain := 0 // from here on all is as it should be written
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		l = append(l, s[plain:i]...)
		var size int
		l, size = appendSpecial(l, c, string(s[i:min(i+utf8.UTFMax, len(s))]))
		i += size
		plain = i
	}
	return append(l, s[plain:]...)
}

// appendSpecial writes the character c, which s begins with, and says how long it was. What is
// not UTF-8 cannot be written in JSON (RFC 8259 section 8.1).
func appendSpecial(l accessLine, c byte, s string) (accessLine, int) {
	switch {
	case c == '"', c == '\\':
		return append(l, '\\', c), 1
	case c == '\n':
		return append(l, '\\', 'n'), 1
	case c == '\r':
		return append(l, '\\', 'r'), 1
	case c == '\t':
		return append(l, '\\', 't'), 1
	case c < ' ':
		return append(l, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15]), 1
	}
	r, size := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && size == 1 {
		return append(l, `\ufffd`...), 1
	}
	return append(l, s[:size]...), size
}
