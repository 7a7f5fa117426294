package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Report is what a request looked like to the backend.
type Report struct {
	Name       string `json:"name"`
	Pod        string `json:"pod"`
	Method     string `json:"method"`
	RequestURI string `json:"requestURI"`
	Host       string `json:"host"`
	Proto      string `json:"proto"`
	// Headers are by canonical name; HeaderLines are as they came, in spelling
	// and in order, where the protocol is HTTP/1 without TLS.
	Headers     map[string][]string `json:"headers"`
	HeaderLines []string            `json:"headerLines,omitempty"`
	Trailers    map[string][]string `json:"trailers,omitempty"`
	RemoteAddr  string              `json:"remoteAddr"`
	LocalAddr   string              `json:"localAddr"`
	ServerName  string              `json:"serverName,omitempty"` // what TLS asked for
	BodyLength  int64               `json:"bodyLength"`
	BodySHA256  string              `json:"bodySHA256"`
	BodyError   string              `json:"bodyError,omitempty"`
}

// notReady is for the whole process: a Pod is ready or not, whatever its ports.
var notReady atomic.Bool

// echo answers requests.
type echo struct{ name, pod string }

func newServer(e *echo) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/ready", e.ready)
	mux.HandleFunc("/ws", e.webSocket)
	mux.HandleFunc("/sse", e.events)
	mux.HandleFunc("/listen", turn)
	mux.HandleFunc("/env", environment)
	mux.HandleFunc("/lookup", lookup)
	mux.HandleFunc("/fetch", fetch)
	mux.HandleFunc("/", e.report)
	s := &http.Server{
		Handler:           e.sign(mux),
		ReadHeaderTimeout: time.Minute,
		Protocols:         new(http.Protocols),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tap); ok {
				return context.WithValue(ctx, tapKey{}, t)
			}
			return ctx
		},
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}

type tapKey struct{}

func serve(s *http.Server, l net.Listener, secure bool) error {
	if !secure {
		return s.Serve(tapListener{l})
	}
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	return s.ServeTLS(l, "", "")
}

// sign tells in every answer who gave it, for those who count answers.
func (e *echo) sign(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo-Pod", e.pod)
		w.Header().Set("X-Echo-Name", e.name)
		h.ServeHTTP(w, r)
	})
}

func (e *echo) ready(w http.ResponseWriter, r *http.Request) {
	if state := r.FormValue("state"); r.Method == http.MethodPost && state != "" {
		notReady.Store(state == "false")
		return
	}
	if notReady.Load() {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
	}
}

// report answers with what it saw, in the manner the query asks for.
func (e *echo) report(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	rep := e.see(r)
	if d, err := time.ParseDuration(q.Get("sleep")); err == nil {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return
		}
	}
	for _, h := range q["header"] {
		name, value, _ := strings.Cut(h, ":")
		w.Header().Add(name, value)
	}
	body, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	if n, err := strconv.ParseInt(q.Get("bytes"), 10, 64); err == nil {
		e.writeBytes(w, n, q.Get("chunked") != "", status(q.Get("status")))
		return
	}
	body = append(body, '\n')
	if q.Get("chunked") == "" {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(status(q.Get("status")))
	if q.Get("chunked") != "" {
		// Sent before there is a body, so that its length cannot be known.
		_ = http.NewResponseController(w).Flush()
	}
	_, _ = w.Write(body)
}

func status(s string) int {
	if n, err := strconv.Atoi(s); err == nil && n >= 200 && n < 1000 {
		return n
	}
	return http.StatusOK
}

// writeBytes sends a body of n bytes.
func (e *echo) writeBytes(w http.ResponseWriter, n int64, chunked bool, status int) {
	w.Header().Set("Content-Type", "application/octet-stream")
	if !chunked {
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	}
	w.WriteHeader(status)
	if chunked {
		_ = http.NewResponseController(w).Flush()
	}
	_, _ = io.CopyN(w, letters{}, n)
}

// letters is an endless supply of the letter x.
type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// see reads the whole request and notes what it was.
func (e *echo) see(r *http.Request) Report {
	rep := Report{
		Name: e.name, Pod: e.pod,
		Method: r.Method, RequestURI: r.RequestURI, Host: r.Host, Proto: r.Proto,
		Headers: r.Header, RemoteAddr: r.RemoteAddr,
	}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		rep.LocalAddr = a.String()
	}
	if r.TLS != nil {
		rep.ServerName = r.TLS.ServerName
	}
	if t, ok := r.Context().Value(tapKey{}).(*tap); ok && r.ProtoMajor == 1 {
		lines := strings.Split(strings.TrimRight(t.nextHead(), "\r\n"), "\r\n")
		rep.HeaderLines = lines[1:]
	}
	sum := sha256.New()
	var err error
	if rep.BodyLength, err = io.Copy(sum, r.Body); err != nil {
		rep.BodyError = err.Error()
	}
	rep.BodySHA256 = hex.EncodeToString(sum.Sum(nil))
	rep.Trailers = r.Trailer
	return rep
}

// events is a stream of server-sent events.
func (e *echo) events(w http.ResponseWriter, r *http.Request) {
	count, err := strconv.Atoi(r.FormValue("count"))
	if err != nil {
		count = 10
	}
	interval, err := time.ParseDuration(r.FormValue("interval"))
	if err != nil {
		interval = 100 * time.Millisecond
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	flush := http.NewResponseController(w)
	for i := range count {
		if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", i, e.pod); err != nil {
			return
		}
		if err := flush.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(interval):
		}
	}
}

// selfSigned makes a certificate for this run alone.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		DNSNames:     []string{"echo", "localhost"},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * 365 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
