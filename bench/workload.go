package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// workload is one thing to do with each proxy in turn.
type workload struct {
	name  string
	title string
	unit  string // what one of its requests is called
	goals goals
	run   func(context.Context, *bench, *proxy) (outcome, error)
	probe func(context.Context, *proxy) error // whether the proxy can do it at all
}

// goals are the ratios of CPU that Portico is to stay within; 0: none.
type goals struct{ nginx, haproxy float64 }

// outcome is what a load saw in one turn.
type outcome struct {
	requests  int
	failed    int
	latencies []time.Duration // where the rate was fixed
}

var errNotSupported = errors.New("not supported")

var workloads = []workload{
	{
		name: "h1", title: "HTTP/1.1, 200-byte answers, 64 connections", unit: "request", goals: goals{1.00, 0.80},
		run: func(ctx context.Context, b *bench, p *proxy) (outcome, error) {
			return b.wrk(ctx, 64, "http://"+hostName+portOf(p.http)+"/")
		},
	},
	{
		name: "tls", title: "HTTP/1.1 over TLS 1.3, 200-byte answers, 64 connections", unit: "request", goals: goals{0.95, 0.80},
		run: func(ctx context.Context, b *bench, p *proxy) (outcome, error) {
			return b.wrk(ctx, 64, "https://"+hostName+portOf(p.https)+"/")
		},
	},
	{
		name: "h2", title: "HTTP/2 over TLS 1.3, 16 connections x 16 streams", unit: "request", goals: goals{1.00, 1.00},
		run: func(ctx context.Context, b *bench, p *proxy) (outcome, error) {
			return b.h2load(ctx, "https://"+hostName+portOf(p.https)+"/")
		},
	},
	{
		name: "handshake", title: "full TLS 1.3 handshakes, ECDSA P-256, X25519", unit: "handshake", goals: goals{1.10, 1.00},
		run: func(ctx context.Context, b *bench, p *proxy) (outcome, error) {
			return handshakes(ctx, p.https, b.cfg.slice)
		},
	},
	{
		name: "download", title: "1 MiB downloads, 16 connections", unit: "download", goals: goals{0.60, 0.80},
		run: func(ctx context.Context, b *bench, p *proxy) (outcome, error) {
			return b.wrk(ctx, 16, "http://"+hostName+portOf(p.http)+largePath)
		},
	},
	{
		name: "download-tls", title: "1 MiB downloads over TLS 1.3, 16 connections", unit: "download", goals: goals{0.80, 0.85},
		run: func(ctx context.Context, b *bench, p *proxy) (outcome, error) {
			return b.wrk(ctx, 16, "https://"+hostName+portOf(p.https)+largePath)
		},
	},
	{
		name: "grpc", title: "gRPC unary, HTTP/2 over TLS in, h2c out, 16 connections x 16 streams", unit: "call", goals: goals{1.00, 0},
		probe: probeGRPC,
		run: func(ctx context.Context, b *bench, p *proxy) (outcome, error) {
			return b.h2load(ctx, "https://"+hostName+portOf(p.https)+grpcPath, "-d", b.grpcFile, "-H", "content-type: application/grpc", "-H", "te: trailers")
		},
	},
	{
		name: "h1-rate", title: "HTTP/1.1, fixed rate, 64 connections", unit: "request",
		run: func(ctx context.Context, b *bench, p *proxy) (outcome, error) {
			return b.paced(ctx, p.http, 64, dialH1)
		},
	},
	{
		name: "tls-rate", title: "HTTP/1.1 over TLS 1.3, fixed rate, 64 connections", unit: "request",
		run: func(ctx context.Context, b *bench, p *proxy) (outcome, error) {
			return b.paced(ctx, p.https, 64, dialTLS)
		},
	},
	{
		name: "h2-rate", title: "HTTP/2 over TLS 1.3, fixed rate, 16 connections", unit: "request",
		run: func(ctx context.Context, b *bench, p *proxy) (outcome, error) {
			return b.paced(ctx, p.https, 16, dialH2)
		},
	},
}

// Idle connections are held once and not in turns.
const (
	idlePlain = "idle"
	idleTLS   = "idle-tls"
	idleH2    = "idle-h2"
)

func workloadNames() []string {
	var names []string
	for _, w := range workloads {
		names = append(names, w.name)
	}
	return append(names, idlePlain, idleTLS, idleH2)
}

func portOf(addr string) string { return fmt.Sprintf(":%d", port(addr)) }
