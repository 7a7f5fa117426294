package engine

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

var testLimits = Limits{}.withDefaults()

// headOf parses what begins with a head as a server does.
func headOf(r *Request, data []byte) (refusal *Refusal, whole bool) {
	end, _, err := scanHead(data, 0)
	switch {
	case err != nil:
		return badRequest(err.Error()), true
	case end == 0:
		return nil, false
	}
	r.reset()
	return r.parse(data[:end], &testLimits), true
}

const typicalRequest = "GET /api/v1/items?page=2 HTTP/1.1\r\nHost: h.test\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef\r\nConnection: keep-alive\r\n\r\n"

func BenchmarkParseRequest(b *testing.B) {
	data := []byte(typicalRequest)
	var r Request
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if refusal, _ := headOf(&r, data); refusal != nil {
			b.Fatal(refusal)
		}
	}
}

// FuzzRequestHead holds the parser against that of net/http: what we accept it accepts too,
// and understands in the same way. We may only be stricter.
//
// One difference is wanted. net/http parses a target as a URL and refuses some that have no
// other reading, as "//[" or a colon before the first slash of a query; those that begin
// with a slash are compared as text only.
func FuzzRequestHead(f *testing.F) {
	for _, seed := range []string{
		typicalRequest,
		"GET / HTTP/1.1\r\nHost: h.test\r\n\r\n",
		"POST /a/../b?c#d HTTP/1.1\r\nHost: h.test:80\r\nContent-Length: 005\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET http://h.test/x HTTP/1.1\r\nHost: H.test\r\nConnection: close, x\r\n\r\n",
		"OPTIONS * HTTP/1.0\r\n\r\n",
		" / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h.test\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
		"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n",
		"GET //x/%2e%2E/%zz HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: \xe4.test\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: 1\r\nX: 2\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\nGET / HTTP/1.1\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nConnection: X-A, host\r\nX-A: 1\r\nX_B: 2\r\nContent-Length: 5\r\n\r\nhello",
		"PUT /%41 HTTP/1.1\r\nHost: a.\r\nExpect: 100-continue\r\nTE: trailers\r\nContent-Length: 3\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > testLimits.MaxHead {
			return
		}
		var r Request
		refusal, whole := headOf(&r, data)
		checkBytewise(t, data)
		if !whole || refusal != nil {
			return
		}
		std := compareRequest(t, &r, data)
		checkForwarded(t, &r)
		if std != nil {
			compareForwarded(t, &r, std)
			end, _, _ := scanHead(data, 0)
			compareBody(t, r.framing, r.ContentLength, data[end:], std.Body)
		}
	})
}

// checkBytewise feeds the scanner byte by byte: it must come to the same end.
func checkBytewise(t *testing.T, data []byte) {
	t.Helper()
	end, next := 0, 0
	var err error
	for n := 1; n <= len(data) && end == 0 && err == nil; n++ {
		end, next, err = scanHead(data[:n], next)
	}
	wantEnd, _, wantErr := scanHead(data, 0)
	if end != wantEnd || (err == nil) != (wantErr == nil) {
		t.Errorf("byte by byte the head ends at %d (%v), at once at %d (%v)", end, err, wantEnd, wantErr)
	}
}

// compareRequest returns what net/http makes of data, if it is of the same opinion.
func compareRequest(t *testing.T, r *Request, data []byte) *http.Request {
	t.Helper()
	std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
	if err != nil {
		if r.Target[0] == '/' && strings.Contains(err.Error(), "parse ") {
			return nil // as a URL
		}
		t.Fatalf("net/http refuses what we accept: %v", err)
	}
	if std.Method != string(r.Method) || std.RequestURI != string(r.Target) {
		t.Errorf("we read %s %s, net/http %s %s", r.Method, r.Target, std.Method, std.RequestURI)
	}
	if isASCII([]byte(std.Host)) && !strings.EqualFold(std.Host, string(r.Authority)) { // else it is in punycode by now
		t.Errorf("we read host %q, net/http %q", r.Authority, std.Host)
	}
	if std.ContentLength != r.ContentLength {
		t.Errorf("we read length %d, net/http %d", r.ContentLength, std.ContentLength)
	}
	if std.Close == r.keepAlive && r.Version == HTTP11 {
		t.Errorf("we keep the connection: %t, net/http closes it: %t", r.keepAlive, std.Close)
	}
	return std
}

// compareForwarded: what an upstream reads of the head that goes to it is what net/http reads
// of the one that came, but for what concerns one connection only.
func compareForwarded(t *testing.T, r *Request, came *http.Request) {
	t.Helper()
	if r.Path[0] == '*' {
		return
	}
	x := &Exchange{Request: *r, upAddr: "192.0.2.1:80"}
	var o output
	x.appendRequest(&o)
	went, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(o.buf)))
	if err != nil {
		if strings.Contains(err.Error(), "parse ") {
			return
		}
		t.Fatalf("net/http refuses what we write: %v\n%q", err, o.buf)
	}
	host := string(r.Authority)
	if host == "" {
		host = x.upAddr
	}
	if went.Method != came.Method || went.Host != host || went.ContentLength != came.ContentLength ||
		len(went.TransferEncoding) != len(came.TransferEncoding) {
		t.Errorf("%s for %q with length %d %q became %s for %q with length %d %q", came.Method, came.Host, came.ContentLength,
			came.TransferEncoding, went.Method, went.Host, went.ContentLength, went.TransferEncoding)
	}
	compareFields(t, came.Header, went.Header)
}

// compareFields compares fields before and after us.
func compareFields(t *testing.T, came, went http.Header) {
	t.Helper()
	stays := map[string]bool{
		"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true, "Transfer-Encoding": true, "Upgrade": true,
		"Http2-Settings": true, "Proxy": true, "Content-Length": true, "Trailer": true, "Expect": true,
	}
	for _, list := range came["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			stays[http.CanonicalHeaderKey(strings.Trim(name, " \t"))] = true
		}
	}
	for name, values := range came {
		if !stays[name] && !strings.Contains(name, "_") && !slices.Equal(values, went[name]) {
			t.Errorf("%s: %q became %q", name, values, went[name])
		}
	}
	for name, values := range went {
		if _, ok := came[name]; !ok && !stays[name] {
			t.Errorf("%s: %q was never said", name, values)
		}
	}
}

// compareBody: a body that we find whole in what follows a head, net/http finds too.
func compareBody(t *testing.T, kind framing, length int64, rest []byte, std io.Reader) {
	t.Helper()
	var b body
	b.start(&input{buf: rest, w: len(rest)}, kind, length)
	var content []byte
	for !b.ended {
		piece, err := b.buffered()
		if err != nil || len(piece) == 0 && !b.ended {
			return
		}
		content = append(content, piece...)
	}
	if kind == byChunks && (len(rest) > 4000 || bytes.ContainsAny(rest, " \t")) {
		return // see FuzzChunked
	}
	if kind == byChunks && len(b.trailer) > 0 {
		return // net/http refuses some that we drop
	}
	if want, err := io.ReadAll(std); err != nil || !bytes.Equal(content, want) {
		t.Errorf("we read the body %q, net/http %q, %v", content, want, err)
	}
}

// checkForwarded writes the request as it goes to an upstream: it must be one head, that we
// would accept again, with the same meaning.
func checkForwarded(t *testing.T, r *Request) {
	t.Helper()
	if r.Path[0] == '*' {
		return
	}
	if !r.sound() {
		t.Fatalf("what was parsed cannot be written: %s %q %q %q", r.Method, r.Path, r.Query, r.Authority)
	}
	x := &Exchange{Request: *r, upAddr: "192.0.2.1:80"}
	var o output
	x.appendRequest(&o)
	var again Request
	refusal, whole := headOf(&again, o.buf)
	if !whole || refusal != nil {
		if refusal != nil && (refusal.Status == 414 || refusal.Status == 431) {
			return // escapes made it longer
		}
		t.Fatalf("what we write is refused: %v\n%q", refusal, o.buf)
	}
	if end, _, _ := scanHead(o.buf, 0); end != len(o.buf) {
		t.Errorf("we write two heads: %q", o.buf)
	}
	if string(again.Path) != string(r.Path) || string(again.Query) != string(r.Query) || again.framing != r.framing ||
		again.ContentLength != r.ContentLength || string(again.Method) != string(r.Method) || again.upgrade != r.upgrade {
		t.Errorf("what we write means something else: %q", o.buf)
	}
}
