package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// echo is a backend of the demo: it says who it is and what it was asked.
type echo struct {
	name   string
	urls   demoURLs
	addr   *net.TCPAddr
	server *http.Server
}

func startEcho(ctx context.Context, name string, urls demoURLs) (*echo, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &echo{name: name, urls: urls, addr: ln.Addr().(*net.TCPAddr)}
	e.server = &http.Server{Handler: e.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute}
	go func() {
		if err := e.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			panic(err) // a listener on loopback that nobody closes does not fail
		}
	}()
	return e, nil
}

func (e *echo) port() int32 { return int32(e.addr.Port) }

func (e *echo) stop() { _ = e.server.Close() } // nothing is written that could be lost

func (e *echo) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", e.page)
	mux.HandleFunc("GET /whoami", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, e.name) })
	mux.HandleFunc("/", e.echo)
	return mux
}

// maxEchoBody is how much of a body an echo sends back.
const maxEchoBody = 4 << 10

// echoed is a request as the backend got it.
type echoed struct {
	Backend string   `json:"backend"`
	Method  string   `json:"method"`
	Host    string   `json:"host"`
	Target  string   `json:"target"`
	Headers []string `json:"headers"`
	Body    string   `json:"body,omitempty"`
}

func (e *echo) see(r *http.Request) echoed {
	v := echoed{Backend: e.name, Method: r.Method, Host: r.Host, Target: r.RequestURI, Headers: []string{}}
	for name, values := range r.Header {
		v.Headers = append(v.Headers, name+": "+strings.Join(values, ", "))
	}
	slices.Sort(v.Headers)
	return v
}

func (e *echo) echo(w http.ResponseWriter, r *http.Request) {
	v := e.see(r)
	body, err := io.ReadAll(io.LimitReader(r.Body, maxEchoBody))
	if err != nil {
		return // the client went away
	}
	v.Body = string(body)
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client went away
}

//go:embed demo.html
var demoPage string

var demoTemplate = template.Must(template.New("demo").Parse(demoPage))

func (e *echo) page(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_ = demoTemplate.Execute(w, struct { // the client went away
		echoed
		URLs    demoURLs
		Version string
	}{e.see(r), e.urls, version})
}
