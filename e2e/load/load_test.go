package load

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func TestRunCountsEveryKindOfAnswer(t *testing.T) {
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Echo-Pod", "p")
		switch n.Add(1) % 4 {
		case 0:
			http.Error(w, "no", http.StatusBadGateway)
		case 1:
			panic(http.ErrAbortHandler) // no answer at all
		}
	}))
	defer s.Close()
	r, err := Run(context.Background(), Options{URL: s.URL, Rate: 400, Duration: 500 * time.Millisecond, NewConnections: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Sent < 150 || r.Sent > 201 {
		t.Errorf("sent %d in half a second at 400 a second", r.Sent)
	}
	if r.OK+r.Failed != r.Sent || r.OK < r.Sent/2-1 || r.Statuses[502] < r.Sent/4-1 || r.Failed < r.Sent/2-1 {
		t.Errorf("%s, statuses %v", r, r.Statuses)
	}
	if r.Pods["p"] != r.OK+r.Statuses[502] || len(r.Failures) == 0 {
		t.Errorf("pods %v, failures %v", r.Pods, r.Failures)
	}
}

// A server that closes kept connections without a word must show.
func TestStaleConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				buf := make([]byte, 4096)
				_, _ = conn.Read(buf)
				_, _ = conn.Write([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
				_, _ = conn.Read(buf) // takes the next request and says nothing
				_ = conn.Close()
			}()
		}
	}()
	o := Options{URL: "http://" + l.Addr().String(), Rate: 100, Connections: 1, Duration: 300 * time.Millisecond}
	r, err := Run(context.Background(), o)
	if err != nil || r.Failed != 0 || r.Stale < 5 {
		t.Errorf("%s %v, want no failures and some stale", r, err)
	}
	o.StrictReuse = true
	r, err = Run(context.Background(), o)
	if err != nil || r.Failed < 5 || r.Stale != 0 {
		t.Errorf("%s %v, want failures and none stale", r, err)
	}
}

func TestTLSTellsTheCertificate(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	r, err := Run(context.Background(), Options{URL: s.URL, Host: "a.example", Rate: 50, Duration: 200 * time.Millisecond})
	if err != nil || r.Failed != 0 || len(r.Certificates) != 1 {
		t.Errorf("%s %v, certificates %v", r, err, r.Certificates)
	}
}
