package router

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// corpusCase is one case of engine/testdata/h1: fields as "name: value" lines.
type corpusCase map[string]string

// readCorpus reads the files that match pattern, by section.
func readCorpus(t *testing.T, pattern string) map[string][]corpusCase {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("engine/testdata/h1", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	sections := map[string][]corpusCase{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		for block := range strings.SplitSeq(string(content), "\n\n") {
			if c := parseCase(t, block); len(c) > 0 {
				sections[name] = append(sections[name], c)
			}
		}
	}
	return sections
}

func parseCase(t *testing.T, block string) corpusCase {
	t.Helper()
	c := corpusCase{}
	for line := range strings.Lines(block) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, ": ")
		if !ok && !strings.HasSuffix(line, ":") {
			t.Fatalf("line %q has no name", line)
		}
		switch name {
		case "bytes", "sees", "never":
			value = unescape(t, strings.ReplaceAll(value, "/T", "/"+c["id"]))
		}
		c[name] = value
	}
	return c
}

var repeated = regexp.MustCompile(`<([^<>]*) x (\d+)>`)

// unescape reads Go's escapes, and "<text x 10>" as ten times the text.
func unescape(t *testing.T, s string) string {
	t.Helper()
	s = repeated.ReplaceAllStringFunc(s, func(m string) string {
		parts := repeated.FindStringSubmatch(m)
		n, _ := strconv.Atoi(parts[2])
		return strings.Repeat(parts[1], n)
	})
	raw, err := strconv.Unquote(`"` + s + `"`)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return raw
}

// TestRequestCorpus sends every request of the corpus over a socket, to a proxy before a
// backend that records every byte.
func TestRequestCorpus(t *testing.T) {
	count := 0
	for section, cases := range readCorpus(t, "[1-8]-*.txt") {
		count += len(cases)
		t.Run(section, func(t *testing.T) {
			for _, c := range cases {
				t.Run(c["id"], func(t *testing.T) {
					t.Parallel()
					runRequest(t, c)
				})
			}
		})
	}
	if count < 170 {
		t.Errorf("the corpus has %d requests", count)
	}
}

func runRequest(t *testing.T, c corpusCase) {
	t.Helper()
	b := startBackend(t, answerAll)
	f := startFront(t, b.addr)
	conn := f.dial(t)
	go func() { // a refusal may come before the last byte is taken
		io.WriteString(conn.Conn, c["bytes"])
		if c["half"] != "" {
			conn.Conn.(*net.TCPConn).CloseWrite()
		}
	}()
	want, end, _ := strings.Cut(c["want"], " ")
	passed := 0
	for i, status := range strings.Split(want, ",") {
		if status == "none" {
			break
		}
		resp, err := http.ReadResponse(conn.r, &http.Request{Method: methodAt(c["bytes"], i)})
		if err != nil {
			t.Fatalf("%s: answer %d: %v", c["what"], i+1, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Errorf("%s: body: %v", c["what"], err)
		}
		if got := strconv.Itoa(resp.StatusCode); got != status {
			t.Errorf("%s: status %s, want %s", c["what"], got, status)
		}
		if status == "200" {
			passed++
		}
	}
	if seen, err := strconv.Atoi(c["seen"]); err == nil {
		passed = seen
	}
	checkEnd(t, c, conn, want == "none", end)
	checkSeen(t, c, b, passed)
}

// methodAt is the method of the request with that number, as far as it matters for reading
// its answer.
func methodAt(raw string, i int) string {
	if i == 0 && strings.HasPrefix(raw, "HEAD ") {
		return "HEAD"
	}
	return "GET"
}

func checkEnd(t *testing.T, c corpusCase, conn *client, silent bool, end string) {
	t.Helper()
	switch {
	case end == "close":
		conn.closed()
	case silent:
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if b, err := conn.r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: want silence, got %q, %v", c["what"], b, err)
		}
	default:
		conn.get("/probe", 200)
	}
}

// checkSeen compares what reached the backend with what should: so many whole requests of
// this case, each well-formed, and nothing else.
func checkSeen(t *testing.T, c corpusCase, b *rawBackend, want int) {
	t.Helper()
	all := b.saw()
	got := 0
	for _, raw := range all {
		r := bufio.NewReader(strings.NewReader(raw))
		for r.Buffered() > 0 || peek(r) {
			req, err := http.ReadRequest(r)
			if err == nil {
				_, err = io.Copy(io.Discard, req.Body)
			}
			if err != nil {
				if c["partial"] == "" {
					t.Errorf("%s: the backend saw a broken request: %v\n%.400q", c["what"], err, raw)
				}
				break
			}
			switch {
			case req.URL.Path == "/probe":
			case !strings.Contains(req.RequestURI, c["id"]) && !strings.Contains(raw, "/"+c["id"]):
				t.Errorf("%s: the backend saw a request for %s", c["what"], req.URL.Path)
			default:
				got++
			}
		}
	}
	raw := strings.Join(all, "")
	if got != want {
		t.Errorf("%s: the backend saw %d requests, want %d:\n%.400q", c["what"], got, want, raw)
	}
	if want == 0 && c["partial"] == "" && raw != "" && !strings.HasPrefix(raw, "GET /probe ") {
		t.Errorf("%s: the backend saw %.400q", c["what"], raw)
	}
	if sees, ok := c["sees"]; ok && !strings.Contains(raw, sees) {
		t.Errorf("%s: the backend did not see %q:\n%.400q", c["what"], sees, raw)
	}
	if never, ok := c["never"]; ok && strings.Contains(raw, never) {
		t.Errorf("%s: the backend saw %q:\n%.400q", c["what"], never, raw)
	}
}

func peek(r *bufio.Reader) bool {
	_, err := r.Peek(1)
	return err == nil
}

// TestAnswerCorpus has a backend give every answer of the corpus, and then checks that
// three more requests through the same proxy get their own.
func TestAnswerCorpus(t *testing.T) {
	cases := readCorpus(t, "9-*.txt")["9-answers"]
	if len(cases) < 46 {
		t.Errorf("the corpus has %d answers", len(cases))
	}
	for _, c := range cases {
		t.Run(c["id"], func(t *testing.T) {
			t.Parallel()
			runAnswer(t, c)
		})
	}
}

func runAnswer(t *testing.T, c corpusCase) {
	t.Helper()
	b := startBackend(t, func(u *upstreamConn) { giveAnswers(u, c) })
	f := startFront(t, b.addr)
	conn := f.dial(t)
	var seen strings.Builder
	conn.r = bufio.NewReader(io.TeeReader(conn.Conn, &seen))
	method, body := "GET", ""
	if m := c["method"]; m != "" {
		method = m
	}
	if n, _ := strconv.Atoi(c["upload"]); n > 0 {
		method, body = "POST", strings.Repeat("x", n)
	}
	go fmt.Fprintf(conn.Conn, "%s /case HTTP/1.1\r\nHost: h.test\r\nContent-Length: %d\r\n\r\n%s", method, len(body), body)
	got, text := readAnswer(t, c, conn, method)
	if got != c["want"] {
		t.Errorf("%s: got %q, want %q", c["what"], got, c["want"])
	}
	wantBody, ok := c["body"]
	if !ok {
		wantBody = "hello"
	}
	if strings.HasSuffix(c["want"], "whole") && text != wantBody {
		t.Errorf("%s: body %q, want %q", c["what"], text, wantBody)
	}
	if sees, ok := c["sees"]; ok && !strings.Contains(seen.String(), sees) {
		t.Errorf("%s: the client did not see %q:\n%.400q", c["what"], sees, seen.String())
	}
	if never, ok := c["never"]; ok && strings.Contains(seen.String(), never) {
		t.Errorf("%s: the client saw %q:\n%.400q", c["what"], never, seen.String())
	}
	for i := range 3 {
		next := f.dial(t)
		if got, want := next.get(fmt.Sprint("/next", i), 200), fmt.Sprint("OK2/next", i); got != want {
			t.Errorf("%s: request %d after it got %q, want %q", c["what"], i+1, got, want)
		}
	}
	if c["fresh"] != "" && b.conns() < 2 {
		t.Errorf("%s: the connection to the backend is used again", c["what"])
	}
}

// readAnswer reads the final answer and says what became of it.
func readAnswer(t *testing.T, c corpusCase, conn *client, method string) (verdict, body string) {
	t.Helper()
	for {
		resp, err := http.ReadResponse(conn.r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%s: no answer: %v", c["what"], err)
		}
		if resp.StatusCode < 200 {
			continue
		}
		text, err := io.ReadAll(resp.Body)
		switch {
		case err != nil:
			return fmt.Sprint(resp.StatusCode, " cut"), string(text)
		case resp.StatusCode == 502:
			return "502", string(text)
		case len(text) == 0 && !slices.Contains([]string{"GET", "POST"}, method),
			len(text) == 0 && !strings.HasSuffix(c["want"], "whole"):
			return fmt.Sprint(resp.StatusCode, " empty"), ""
		}
		return fmt.Sprint(resp.StatusCode, " whole"), string(text)
	}
}

// giveAnswers is the backend: the case's answer to its request, their own to others.
func giveAnswers(u *upstreamConn, c corpusCase) {
	for {
		r, err := http.ReadRequest(u.r)
		if err != nil {
			return
		}
		if r.URL.Path != "/case" {
			text := "OK2" + r.URL.Path
			u.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text))
			continue
		}
		if c["then"] != "early" {
			io.Copy(io.Discard, r.Body)
		}
		u.send(c["bytes"])
		switch c["then"] {
		case "close":
			return
		case "early": // it closes, but has the manners to let its answer be read
			u.Conn.(*net.TCPConn).CloseWrite()
			u.gone()
			return
		case "reset":
			u.untilTaken() // or the bytes would be lost with it
			u.reset()
			return
		}
	}
}
