package annotation

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// word makes a parser of one of several words, each with its meaning, in the order in which
// they are told.
func word[T any](words []string, meanings ...T) func(string) (T, error) {
	return func(value string) (T, error) {
		for i, w := range words {
			if w == value {
				return meanings[i], nil
			}
		}
		var none T
		return none, fmt.Errorf("is none of %s", quotedList(words))
	}
}

func quotedList(words []string) string {
	quoted := make([]string, 0, len(words))
	for _, w := range words {
		quoted = append(quoted, strconv.Quote(w))
	}
	return strings.Join(quoted, ", ")
}

// number makes a parser of a whole number in a range.
func number(least, most int) func(string) (int, error) {
	return func(value string) (int, error) {
		n, err := strconv.Atoi(value)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("is no whole number from %d to %d", least, most)
		}
		return n, nil
	}
}

// span makes a parser of a time: of Go ("1m30s"), or a number of seconds as ingress-nginx
// has them. Empty is 0, where that is allowed.
func span(least, most time.Duration) func(string) (time.Duration, error) {
	return func(value string) (time.Duration, error) {
		d, err := time.ParseDuration(value)
		if seconds, numErr := strconv.Atoi(value); numErr == nil && abs(seconds) < 1<<31 {
			d, err = time.Duration(seconds)*time.Second, nil
		}
		if value == "" {
			d, err = 0, nil
		}
		if err != nil || d < least || d > most {
			return 0, fmt.Errorf(`is no time from %s to %s, as "90s", "1m30s" or a number of seconds`, least, most)
		}
		return d, nil
	}
}

func abs(n int) int { return max(n, -n) }

// boolean parses what ingress-nginx takes.
func boolean(value string) (bool, error) {
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, errors.New(`is neither "true" nor "false"`)
	}
	return on, nil
}

// isNameToken tells whether s is a token of RFC 9110 section 5.6.2.
func isNameToken(s string) bool {
	for _, c := range []byte(s) {
		alnum := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// isPlain tells whether s is printable ASCII with none of the others in it.
func isPlain(s, others string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || strings.IndexByte(others, c) >= 0 {
			return false
		}
	}
	return true
}

// isHostname tells whether s can be a host name, a domain, or an IPv4 address.
func isHostname(s string) bool {
	for _, c := range []byte(s) {
		if ('a' > c|0x20 || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 253
}

// isDNSName tells whether s is labels of letters, digits, underscores and inner hyphens, as the
// names in certificates are.
func isDNSName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || !isHostname(label) {
			return false
		}
	}
	return true
}
