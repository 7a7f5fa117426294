package engine

import (
	"bufio"
	"bytes"
	"net/http"
	"testing"
)

// FuzzResponseHead holds the parser of answers against that of net/http: what we accept it
// accepts too, with the same status and length.
func FuzzResponseHead(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.0 304 Not Modified\r\nConnection: keep-alive\r\nContent-Length: 7\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 099 x\r\n\r\n", "HTTP/1.1 200 a\tb\r\nX-A:\r\n\r\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		end, _, err := scanHead(data, 0)
		if err != nil || end == 0 {
			return
		}
		var r Response
		if r.parse(data[:end], []byte(method), 500) != nil {
			return
		}
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("net/http refuses what we accept: %v", err)
		}
		if std.StatusCode != r.Status {
			t.Errorf("we read status %d, net/http %d", r.Status, std.StatusCode)
		}
		if want := std.ContentLength; r.framing != noBody && want != r.ContentLength {
			t.Errorf("we read length %d, net/http %d", r.ContentLength, want)
		}
		checkAnswerLines(t, &r)
		compareAnswer(t, &r, std)
		if r.framing != untilClose {
			compareBody(t, r.framing, r.ContentLength, data[end:], std.Body)
		}
	})
}

// compareAnswer: a client reads of the head that goes to it what net/http reads of the one
// that came.
func compareAnswer(t *testing.T, r *Response, came *http.Response) {
	t.Helper()
	b := append(r.Fields.appendTo(appendStatusLine(nil, r)), "\r\n"...)
	if r.Status < 200 && r.Status != 101 {
		return // net/http knows of no fields to compare
	}
	went, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), came.Request)
	if err != nil {
		t.Fatalf("net/http refuses what we write: %v\n%q", err, b)
	}
	compareFields(t, came.Header, went.Header)
}

// checkAnswerLines writes the head as it goes to a client: as many lines as fields.
func checkAnswerLines(t *testing.T, r *Response) {
	t.Helper()
	status := r.Status
	if status < 100 || status > 999 {
		status = 500
	}
	b := r.Fields.appendTo(appendStatusLine(nil, r))
	if lines := bytes.Count(b, []byte("\n")); lines != r.Fields.Len()+1 || bytes.Count(b, []byte("\r")) != lines {
		t.Errorf("%d fields became %q", r.Fields.Len(), b)
	}
	var again Response
	if _, err := again.parseLine(b[:bytes.IndexByte(b, '\n')-1]); err != nil || again.Status != status {
		t.Errorf("the status line %q is read as %d, %v", b, again.Status, err)
	}
}

func TestNothingAHandlerSaysEndsTheStatusLine(t *testing.T) {
	for _, r := range []Response{
		{Status: 200, Reason: []byte("OK\r\nSet-Cookie: a=b")},
		{Status: 200, Reason: []byte("\x00")},
		{Status: 0},
		{Status: -1},
		{Status: 1000},
		{Status: 1 << 40},
		{Status: 599},
	} {
		checkAnswerLines(t, &r)
	}
}
