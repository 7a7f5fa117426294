package main

import (
	"errors"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"
)

// serveReverseProxy is net/http's ReverseProxy, as one would set it up: addresses for HTTP and
// HTTPS, the backend's two, certificate and key.
func serveReverseProxy(args []string) error {
	if len(args) != 6 {
		return errors.New("reverseproxy: want six arguments")
	}
	backend, grpc, cert, key := args[2], args[3], args[4], args[5]
	overH2C := new(http.Protocols)
	overH2C.SetUnencryptedHTTP2(true)
	plain := &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}
	h2c := &http.Transport{Protocols: overH2C}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			to := backend
			if isGRPC(r.In) {
				to = grpc
			}
			r.SetURL(&url.URL{Scheme: "http", Host: to})
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if isGRPC(r) {
				return h2c.RoundTrip(r)
			}
			return plain.RoundTrip(r)
		}),
	}
	https := &http.Server{Addr: args[1], Handler: proxy, TLSConfig: serverTLS(), ReadHeaderTimeout: time.Minute}
	failed := make(chan error, 2)
	go func() { failed <- https.ListenAndServeTLS(cert, key) }()
	http := &http.Server{Addr: args[0], Handler: proxy, ReadHeaderTimeout: time.Minute}
	go func() { failed <- http.ListenAndServe() }()
	return <-failed
}

func isGRPC(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
