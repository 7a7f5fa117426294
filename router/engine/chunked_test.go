package engine

import (
	"bytes"
	"errors"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
)

// decode decodes as a connection would that gives step bytes at a time.
func decode(input []byte, step int) (content, trailer []byte, took int, err error) {
	var d chunkDecoder
	for took < len(input) {
		end := min(took+step, len(input))
		data, n, done, err := d.step(input[took:end], &trailer)
		content = append(content, data...)
		took += n
		if err != nil || done {
			return content, trailer, took, err
		}
	}
	return content, trailer, took, io.ErrUnexpectedEOF
}

// Each of these breaks one rule of the syntax, and is refused at that byte at the latest.
func TestMalformedChunks(t *testing.T) {
	for name, input := range map[string]string{
		"a size without digits":                  "\r\n\r\n",
		"an extension without a size":            ";a=b\r\n\r\n",
		"a space without a size":                 " ;a\r\n\r\n",
		"more digits than fit":                   "1000000000000000\r\n",
		"more zeros than anybody sends":          strings.Repeat("0", maxZeros+16) + "\r\n\r\n",
		"no digit":                               "5g\r\nhello\r\n0\r\n\r\n",
		"a space before the line end":            "5 \r\nhello\r\n0\r\n\r\n",
		"CR without LF after a size":             "5\rXhello\r\n0\r\n\r\n",
		"LF alone after a size":                  "5\nhello\r\n0\r\n\r\n",
		"a control character in an extension":    "5;a=\x01\r\nhello\r\n0\r\n\r\n",
		"LF in an extension":                     "5;a\nhello\r\n0\r\n\r\n",
		"CR in a quoted extension":               "5;a=\"b\r\nhello\r\n0\r\n\r\n",
		"data that does not end":                 "5\r\nhelloX\n0\r\n\r\n",
		"LF alone after data":                    "5\r\nhello\n0\r\n\r\n",
		"CR without LF after data":               "5\r\nhello\rX0\r\n\r\n",
		"LF alone in the trailer section":        "0\r\nA: b\n\r\n",
		"CR without LF in the trailer section":   "0\r\nA: b\rX\r\n\r\n",
		"CR without LF at the end":               "0\r\n\rX",
		"LF alone at the end":                    "0\r\n\n",
		"a trailer section that is too long":     "0\r\nA: " + strings.Repeat("b", maxTrailer) + "\r\n\r\n",
		"white space in front of a size":         "\t5\r\nhello\r\n0\r\n\r\n",
		"spaces without end before an extension": "5" + strings.Repeat(" ", maxChunkExtensions+1) + ";a\r\nhello\r\n0\r\n\r\n",
		"one extension without end":              "5;" + strings.Repeat("a", maxChunkExtensions+1) + "\r\nhello\r\n0\r\n\r\n",
	} {
		if content, _, took, err := decode([]byte(input), len(input)); !errors.Is(err, errChunk) {
			t.Errorf("%s: %q after %d bytes, %v", name, content, took, err)
		}
	}
}

// FuzzChunked holds the decoder against that of net/http/internal: what we accept it accepts
// too, with the same content.
//
// Three differences are wanted: white space before an extension, which RFC 9112 section 7.1.1
// allows and net/http does not, a size with many zeros in front, and lines longer than its buffer.
func FuzzChunked(f *testing.F) {
	for _, seed := range []string{
		"5\r\nhello\r\n0\r\n\r\n", "5;a=b\r\nhello\r\n000\r\nX-T: 1\r\n\r\nrest", "5 ;a\r\nhello\r\n0\r\n\r\n",
		"A;a=\"x;\\\"y\"\r\n0123456789\r\n0\r\n\r\n", "5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "fffffffffffffff\r\n", "5\r\r\nhello\r\n0\r\n\r\n", "-5\r\nhello", "0\r\n\r\n",
		"000000000000000000005\r\nhello\r\n0000000000000000000\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		content, trailer, took, err := decode(data, len(data)+1)
		slow, slowTrailer, slowTook, slowErr := decode(data, 1)
		if !bytes.Equal(content, slow) || !bytes.Equal(trailer, slowTrailer) || !errors.Is(slowErr, err) || took != slowTook {
			t.Fatalf("at once %q %q %d %v, byte by byte %q %q %d %v", content, trailer, took, err, slow, slowTrailer, slowTook, slowErr)
		}
		if done, checkErr := (chunkDecoder{}).check(data); done != (err == nil) || checkErr != nil != (err != nil && !errors.Is(err, io.ErrUnexpectedEOF)) {
			t.Errorf("looking ahead says %t, %v; decoding says %v", done, checkErr, err)
		}
		if err != nil {
			return
		}
		checkRechunked(t, content)
		if bytes.ContainsAny(data[:took], " \t") || bytes.Contains(data[:took], []byte("0000000000000")) || len(data) > 4000 {
			return
		}
		std, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(data)))
		if err != nil || !bytes.Equal(std, content) {
			t.Fatalf("we read %q, net/http %q, %v", content, std, err)
		}
	})
}

// checkRechunked writes content as an output does, and reads it back.
func checkRechunked(t *testing.T, content []byte) {
	t.Helper()
	coded := appendChunkSize(nil, len(content))
	coded = append(append(coded, content...), "\r\n0\r\n\r\n"...)
	if len(content) == 0 {
		coded = []byte("0\r\n\r\n")
	}
	if again, _, _, err := decode(coded, 7); err != nil || !bytes.Equal(again, content) {
		t.Errorf("%q came back as %q, %v", content, again, err)
	}
}

func TestChunkExtensionsAreBoundedOverTheWholeBody(t *testing.T) {
	chunk := "1;" + strings.Repeat("a", 100) + "\r\nx\r\n"
	if _, _, _, err := decode([]byte(strings.Repeat(chunk, 100)+"0\r\n\r\n"), 1<<20); err != nil {
		t.Errorf("10 kB: %v", err)
	}
	if _, _, _, err := decode([]byte(strings.Repeat(chunk, 200)+"0\r\n\r\n"), 1<<20); !errors.Is(err, errChunk) {
		t.Errorf("20 kB: %v", err)
	}
	signed := "400;chunk-signature=" + strings.Repeat("a", 64) + "\r\n" + strings.Repeat("x", 1024) + "\r\n"
	if _, _, _, err := decode([]byte(strings.Repeat(signed, 2000)+"0\r\n\r\n"), 1<<20); err != nil {
		t.Errorf("2000 chunks of 1 kB with an extension each: %v", err)
	}
	if _, _, _, err := decode([]byte("1"+strings.Repeat(" ", 20000)+";\r\nx\r\n0\r\n\r\n"), 1<<20); !errors.Is(err, errChunk) {
		t.Errorf("20 kB of spaces: %v", err)
	}
}

func TestTrailersThatMayPass(t *testing.T) {
	control := "Vary: a\r\nDate: b\r\nRetry-After: 1\r\nIf-Match: a\r\nX_A: 1\r\n"
	const same = "\x00as in a request"
	tests := []struct{ name, section, want, answer string }{
		{"none", "", "", same},
		{"plain ones, in order", "X-A: 1\r\ngrpc-status: 0\r\n", "X-A: 1\r\ngrpc-status: 0\r\n", same},
		{"what the RFC allows", "ETag: a\r\nAuthentication-Info: b\r\n", "ETag: a\r\nAuthentication-Info: b\r\n", same},
		{"conditions", "If-Match: a\r\nif-none-match: b\r\nIf-Modified-Since: c\r\nIf-Unmodified-Since: d\r\nIf-Range: e\r\nX-A: 1\r\n", "X-A: 1\r\n", "If-Match: a\r\nif-none-match: b\r\nIf-Modified-Since: c\r\nIf-Unmodified-Since: d\r\nIf-Range: e\r\nX-A: 1\r\n"},
		{"control", control, "", control},
		{"challenges", "WWW-Authenticate: x\r\nProxy-Authenticate: y\r\n", "", same},
		{"framing", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n", "X-A: 1\r\n", same},
		{"routing", "Host: evil\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: x\r\nX-Real-IP: 6\r\n", "", same},
		{"authority", "Authorization: x\r\nCookie: a\r\nSet-Cookie: a\r\nproxy-authorization: x\r\n", "", same},
		{"the connection's", "Connection: X-A\r\nX-A: 1\r\nUpgrade: h2c\r\nTE: x\r\nKeep-Alive: x\r\n", "", same},
		{"a line without a colon", "X-A: 1\r\ngarbage\r\n", "error", same},
		{"a control character", "X-A: \x00\r\n", "error", same},
		{"more than there may be", strings.Repeat("X: 1\r\n", 101), "error", same},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.answer == same {
				tt.answer = tt.want
			}
			check := func(of string, mayTrail func(FieldID, []byte) bool, want string) {
				got, err := (&body{trailer: []byte(tt.section)}).allowedTrailer(mayTrail)
				if err != nil {
					got = []byte("error")
				}
				if string(got) != want {
					t.Errorf("of %s: got %q, want %q", of, got, want)
				}
			}
			check("a request", mayTrailRequest, tt.want)
			check("an answer", mayTrailAnswer, tt.answer)
		})
	}
}
