package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/portico-ingress/portico/router"
)

func testRecord() *router.Record {
	return &router.Record{
		Time:          time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC),
		Duration:      1500 * time.Microsecond,
		ID:            []byte("0123"),
		Client:        netip.MustParseAddrPort("192.0.2.1:5555"),
		TLS:           true,
		Method:        []byte("GET"),
		Host:          []byte("a.example"),
		Path:          []byte("/x\"\xff\n"),
		Proto:         "HTTP/1.1",
		Status:        200,
		BytesReceived: 10,
		BytesSent:     20,
		Route:         &router.Route{Host: "a.example", Path: "/", Origin: "default/web", Service: "default/web:80"},
		Upstream:      "10.0.0.1:8080",
		Tries:         2,
		UpstreamTime:  time.Millisecond,
	}
}

func logged(t *testing.T, r *router.Record) any {
	t.Helper()
	var b bytes.Buffer
	log, done, err := newAccessLog("stdout", &b, nil)
	if err != nil {
		t.Fatal(err)
	}
	log.Log(r)
	if err := done(); err != nil {
		t.Fatal(err)
	}
	if bytes.Count(b.Bytes(), []byte("\n")) != 1 {
		t.Errorf("%q is not one line", b.String())
	}
	return decodeJSON(t, b.String())
}

func TestAccessLog(t *testing.T) {
	want := decodeJSON(t, `{
		"time": "2026-01-02T03:04:05.000006Z", "request_id": "0123", "client": "192.0.2.1", "client_port": 5555,
		"method": "GET", "scheme": "https", "host": "a.example", "path": "/x\"\ufffd\n", "protocol": "HTTP/1.1",
		"status": 200, "duration": 0.0015, "bytes_received": 10, "bytes_sent": 20,
		"ingress": "default/web", "route": "a.example/", "service": "default/web:80",
		"endpoint": "10.0.0.1:8080", "tries": 2, "upstream_time": 0.001
	}`)
	if diff := cmp.Diff(want, logged(t, testRecord())); diff != "" {
		t.Error(diff)
	}
}

func TestAccessLogOfUnreadableRequest(t *testing.T) {
	want := decodeJSON(t, `{
		"time": "2026-01-02T03:04:05Z", "client": "192.0.2.1", "client_port": 1, "scheme": "http",
		"status": 400, "duration": 0, "bytes_received": 0, "bytes_sent": 0, "note": "bare LF"
	}`)
	r := &router.Record{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Client: netip.MustParseAddrPort("192.0.2.1:1"), Status: 400, Note: "bare LF"}
	if diff := cmp.Diff(want, logged(t, r)); diff != "" {
		t.Error(diff)
	}
}

// What a client writes can be anything, and still comes out as it was, in one line of JSON.
func TestAccessLogEscapes(t *testing.T) {
	all := make([]byte, 0, 256)
	for c := range 256 {
		all = append(all, byte(c))
	}
	for _, path := range []string{"/", `/"`, `\`, "/\x7f", "/ü€😀", "\xf0\x9f\x98", "/\u2028\ufffd", "\r\n\t\x00\x1f", string(all)} {
		r := testRecord()
		r.Path = []byte(path)
		r.Route = &router.Route{Host: path, Path: path, Origin: path, Service: path}
		got, _ := logged(t, r).(map[string]any)
		want := string([]rune(path)) // each byte that is no UTF-8 is U+FFFD
		if got["path"] != want || got["route"] != want+want || got["service"] != want {
			t.Errorf("%q: path %q, route %q, service %q", path, got["path"], got["route"], got["service"])
		}
	}
}

func TestAccessLogDurations(t *testing.T) {
	for d, want := range map[time.Duration]float64{
		0: 0, 1: 1e-9, time.Microsecond: 1e-6, 1500 * time.Millisecond: 1.5, time.Second: 1, time.Hour + 10*time.Millisecond: 3600.01,
	} {
		r := testRecord()
		r.Duration = d
		if got, _ := logged(t, r).(map[string]any); got["duration"] != want {
			t.Errorf("%v: %v, want %v", d, got["duration"], want)
		}
	}
}

func TestAccessLogAllocatesNothing(t *testing.T) {
	log, done, err := newAccessLog("/dev/null", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := testRecord()
	r.Route.Host = strings.Repeat("long.", 20) + "example"
	if n := testing.AllocsPerRun(1000, func() { log.Log(r) }); n >= 1 {
		t.Errorf("%v allocations a line, want none", n)
	}
	if err := done(); err != nil {
		t.Fatal(err)
	}
}

func TestAccessLogOff(t *testing.T) {
	log, _, err := newAccessLog("off", nil, nil)
	if log != nil || err != nil {
		t.Errorf("%v, %v", log, err)
	}
}

func BenchmarkAccessLog(b *testing.B) {
	log, done, err := newAccessLog("/dev/null", nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	r := testRecord()
	b.ReportAllocs()
	for b.Loop() {
		log.Log(r)
	}
	if err := done(); err != nil {
		b.Fatal(err)
	}
}
