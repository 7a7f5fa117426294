package router

import (
	"bytes"

	"github.com/portico-ingress/portico/router/engine"
)

// accelFields are what an upstream says to nginx, and nginx to nobody (its
// proxy_hide_header has them by default).
var accelFields = engine.SetOf(
	engine.XAccelBuffering, engine.XAccelCharset, engine.XAccelExpires,
	engine.XAccelLimitRate, engine.XAccelRedirect,
)

// accept takes the answer of an endpoint for the one that the client gets.
func (s *passage) accept(x *engine.Exchange) {
	if most := s.route.BufferAnswer; most > 0 && mayBuffer(&x.Response) {
		x.BufferAnswer, x.UpstreamDone = most, upstreamDone
	}
	x.Response.Fields.DelSet(accelFields)
}

// mayBuffer reports whether an answer may be held for its client: not if the upstream says so
// to nginx, nor streams of events or messages, of which each is for now. That nginx may also be
// told to buffer is left out: how much memory there is for it is the policy's to say.
func mayBuffer(r *engine.Response) bool {
	kind := r.Fields.Get(engine.ContentType)
	return !bytes.EqualFold(r.Fields.Get(engine.XAccelBuffering), no) &&
		!hasPrefixFold(kind, eventStream) && !hasPrefixFold(kind, grpcAnyKind)
}

var (
	no          = []byte("no")
	eventStream = []byte("text/event-stream")
	grpcAnyKind = []byte("application/grpc") // gRPC-Web, too
)

func hasPrefixFold(b, prefix []byte) bool {
	return len(b) >= len(prefix) && bytes.EqualFold(b[:len(prefix)], prefix)
}

// upstreamDone counts the request out: its endpoint has room for the next one, though the
// client has not got all of the answer yet.
func upstreamDone(x *engine.Exchange) { passageOf(x).release() }
