package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func start(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(&echo{name: "n", pod: "p"})
	go func() { _ = serve(s, l, false) }()
	t.Cleanup(func() { _ = s.Close() })
	return l.Addr().String()
}

// Requests one after the other and all at once: every answer must tell of its
// own head, untouched, whatever kind of body lies between them.
func TestReportsHeadsAsTheyCame(t *testing.T) {
	requests := []string{
		"GET /a HTTP/1.1\r\nhost: x\r\nX-b: 1\r\nx-A: 2\r\n\r\n",
		"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nx-last: 1\r\n\r\nhello",
		"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: 1\r\n\r\n",
		"GET /d HTTP/1.1\r\nHost: x\r\nZ: 1\r\nz: 2\r\n\r\n",
	}
	for name, together := range map[string]bool{"in turn": false, "pipelined": true} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", start(t))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if together {
				if _, err := io.WriteString(conn, strings.Join(requests, "")); err != nil {
					t.Fatal(err)
				}
			}
			br := bufio.NewReader(conn)
			for _, r := range requests {
				if !together {
					if _, err := io.WriteString(conn, r); err != nil {
						t.Fatal(err)
					}
				}
				rep := read(t, br)
				head, _, _ := strings.Cut(r, "\r\n\r\n")
				if want := strings.Split(head, "\r\n")[1:]; !slices.Equal(rep.HeaderLines, want) {
					t.Errorf("header lines %q, want %q", rep.HeaderLines, want)
				}
				if rep.RequestURI == "/c" && (rep.BodyLength != 6 || rep.Trailers["T"] == nil) {
					t.Errorf("report %+v, want a body of 6 and a trailer", rep)
				}
			}
		})
	}
}

func read(t *testing.T, br *bufio.Reader) Report {
	t.Helper()
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var rep Report
	if err := json.Unmarshal(body, &rep); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return rep
}

func TestQuerySwitches(t *testing.T) {
	addr := start(t)
	for query, check := range map[string]func(*http.Response, string) bool{
		"status=503":      func(r *http.Response, _ string) bool { return r.StatusCode == 503 },
		"bytes=70000":     func(r *http.Response, b string) bool { return r.ContentLength == 70000 && len(b) == 70000 },
		"chunked=1":       func(r *http.Response, b string) bool { return r.ContentLength == -1 && strings.HasPrefix(b, "{") },
		"header=A:b&x=1":  func(r *http.Response, _ string) bool { return r.Header.Get("A") == "b" },
		"bytes=9&chunked": func(r *http.Response, b string) bool { return r.ContentLength == 9 && b == "xxxxxxxxx" },
	} {
		res, err := http.Get("http://" + addr + "/?" + query)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || !check(res, string(body)) || res.Header.Get("X-Echo-Pod") != "p" {
			t.Errorf("%s answers %v %.80q %v", query, res, body, err)
		}
	}
}

func TestReadinessTurns(t *testing.T) {
	addr := start(t)
	defer notReady.Store(false)
	for _, want := range []int{200, 503, 200} {
		res, err := http.Get("http://" + addr + "/ready")
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Fatalf("ready is %d, want %d", res.StatusCode, want)
		}
		state := map[int]string{200: "false", 503: "true"}[want]
		res, err = http.Post("http://"+addr+"/ready?state="+state, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
	}
}

func TestWebSocketSendsBack(t *testing.T) {
	conn, err := net.Dial("tcp", start(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	br := bufio.NewReader(conn)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%v %v", res, err)
	}
	// "hi" under the mask 1 2 3 4.
	_, _ = conn.Write([]byte{0x81, 0x82, 1, 2, 3, 4, 'h' ^ 1, 'i' ^ 2})
	got := make([]byte, 4)
	if _, err := io.ReadFull(br, got); err != nil || string(got) != "\x81\x02hi" {
		t.Fatalf("%q %v", got, err)
	}
}
