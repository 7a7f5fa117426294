package engine

import "bytes"

// scanHead looks for the end of a head in buf: the empty line. It goes on at scanned,
// where the last call stopped, so that a head that comes byte by byte is not read again
// and again. Line ends other than CRLF are errors as soon as they are seen (RFC 9112
// section 2.2 lets a recipient take a bare LF; two that differ in this see two different
// requests).
//
// end is the length of the head with its empty line, or 0 if more is needed.
func scanHead(buf []byte, scanned int) (end, next int, err error) {
	for {
		i := bytes.IndexByte(buf[scanned:], '\n')
		if i < 0 {
			return 0, len(buf), nil
		}
		i += scanned
		if i == 0 || buf[i-1] != '\r' {
			return 0, 0, errBareLF
		}
		if i >= 3 && buf[i-2] == '\n' {
			return i + 1, i + 1, nil
		}
		scanned = i + 1
	}
}

// parseFieldLines parses the field lines of a complete section: each ends in CRLF, and
// there is no empty line. Nothing is repaired.
func parseFieldLines(section []byte, fields *Fields, maxFields int) error {
	for len(section) > 0 {
		end := bytes.IndexByte(section, '\n')
		line := section[:end-1]
		section = section[end+1:]
		colon := 0
		for colon < len(line) && isTokenByte[line[colon]] {
			colon++
		}
		switch {
		case colon == len(line):
			return errFieldLine
		case colon == 0 || line[colon] != ':':
			return errFieldName // also obs-fold and a space before the colon
		case len(fields.list) >= maxFields:
			return errTooManyFields
		}
		value := trimOWS(line[colon+1:])
		if hasControl(value) {
			return errFieldValue
		}
		fields.add(line[:colon], value)
	}
	return nil
}

// framing says how the end of a body is found (RFC 9112 section 6.3).
type framing uint8

const (
	noBody framing = iota
	byLength
	byChunks
	untilClose
)

// messageFraming reads Content-Length and Transfer-Encoding. Whatever two recipients
// could understand differently is an error: both of them, several, a coding other than
// chunked, a length that is no plain number.
func messageFraming(fields *Fields) (framing, int64, error) {
	kind, length := noBody, int64(0)
	seen := false
	for i := range fields.list {
		f := &fields.list[i]
		switch f.ID {
		case ContentLength:
			n, ok := parseLength(f.Value)
			if !ok || seen {
				return 0, 0, errLength
			}
			kind, length, seen = byLength, n, true
			f.Value = cutZeros(f.Value) // for those who would read too many of them as an overflow
		case TransferEncoding:
			if seen || !equalFold(f.Value, "chunked") {
				return 0, 0, errTransferEncoding
			}
			kind, length, seen = byChunks, -1, true
		}
	}
	return kind, length, nil
}
