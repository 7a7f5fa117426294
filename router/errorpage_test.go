package router

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestErrorPages(t *testing.T) {
	f := startFront(t) // no endpoint: 503
	tests := []struct{ name, accept, want string }{
		{"no Accept", "", "text/html; charset=utf-8"},
		{"anything", "Accept: */*\r\n", "text/html; charset=utf-8"},
		{"a browser", "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n", "text/html; charset=utf-8"},
		{"JSON", "Accept: application/json\r\n", "application/json"},
		{"JSON before all else", "Accept: application/json, text/plain, */*\r\n", "application/json"},
		{"JSON of a kind", "Accept: application/problem+json\r\n", "application/json"},
		{"JSON in capitals", "Accept: APPLICATION/JSON\r\n", "application/json"},
		{"rather HTML", "Accept: application/json;q=0.5, text/html\r\n", "text/html; charset=utf-8"},
		{"rather JSON", "Accept: application/json, text/html;q=0.5\r\n", "application/json"},
		{"never JSON", "Accept: application/json;q=0\r\n", "text/html; charset=utf-8"},
		{"nonsense", "Accept: ;;;,,=q;q=x\r\n", "text/html; charset=utf-8"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := f.talk(t, "GET / HTTP/1.1\r\nHost: h.test\r\n"+tt.accept+"\r\n")
			if got := resp.Header.Get("Content-Type"); got != tt.want || resp.StatusCode != 503 {
				t.Errorf("status %d, Content-Type %q, want %q", resp.StatusCode, got, tt.want)
			}
			e := f.log.await(t, i+1)[i]
			if len(e.ID) != 32 || !strings.Contains(body, e.ID) {
				t.Errorf("the page does not name the request %q: %s", e.ID, body)
			}
			if tt.want != "application/json" {
				return
			}
			var page struct {
				Status           int
				Error, RequestID string
			}
			if err := json.Unmarshal([]byte(body), &page); err != nil || page.Status != 503 || page.Error != "Service Unavailable" || page.RequestID != e.ID {
				t.Errorf("%s: %+v, %v", body, page, err)
			}
		})
	}
}

func TestTheRequestIDIsTheSameEverywhere(t *testing.T) {
	ids := make(chan string, 1)
	b := startBackend(t, func(c *upstreamConn) {
		r, _, ok := c.request()
		if !ok {
			return
		}
		ids <- r.Header.Get("X-Request-Id")
		c.send("nonsense\r\n\r\n")
	})
	f := startFront(t, b.addr)
	_, body := f.talk(t, getIt)
	id, e := <-ids, f.log.await(t, 1)[0]
	if e.ID != id || !strings.Contains(body, id) {
		t.Errorf("backend %q, log %q, page %s", id, e.ID, body)
	}
	if !strings.HasPrefix(e.Note, "protocol: ") || e.Status != 502 || e.Upstream != b.addr || e.Tries != 1 || e.Route == nil {
		t.Errorf("in the log: %+v", e)
	}
	if strings.Contains(body, b.addr) || strings.Contains(body, "protocol") {
		t.Errorf("the page says too much: %s", body)
	}
}

func TestRefusalsAreLoggedWithTheirReason(t *testing.T) {
	f := startFront(t)
	f.talk(t, "GET /x HTTP/1.1\r\nHost: a b\r\n\r\n")
	if e := f.log.await(t, 1)[0]; e.Status != 400 || e.Note != "invalid host" || e.Method != "GET" || e.Path != "/x" || e.Route != nil {
		t.Errorf("%+v", e)
	}
	resp, _ := f.talk(t, "TRACE / HTTP/1.1\r\nHost: h.test\r\n\r\n")
	if resp.StatusCode != 405 || resp.Header.Get("Allow") == "" || !resp.Close {
		t.Errorf("%+v", resp)
	}
}
