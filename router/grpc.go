package router

import (
	"strconv"

	"github.com/portico-ingress/portico/router/engine"
)

// Statuses of gRPC that the proxy gives (google.golang.org/grpc/codes).
const (
	grpcUnknown           = 2
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// grpcStatus is what a status of HTTP is to a caller of gRPC: as its mapping says for
// answers of proxies (grpc/doc/http-grpc-status-mapping.md), and closer where we know more.
func grpcStatus(status int) int64 {
	switch status {
	case 400:
		return grpcInternal
	case 401:
		return grpcUnauthenticated
	case 403:
		return grpcPermissionDenied
	case 404:
		return grpcUnimplemented
	case 408, 504:
		return grpcDeadlineExceeded
	case 413, 414, 431:
		return grpcResourceExhausted
	case 429, 502, 503:
		return grpcUnavailable
	}
	return grpcUnknown
}

const grpcType = "application/grpc"

// grpcCut ends a call whose upstream has gone in the middle of its answer.
var grpcCut = []byte("grpc-status: 14\r\ngrpc-message: the upstream broke off\r\n")

var grpcStatusField, grpcMessageField = []byte("grpc-status"), []byte("grpc-message")

// replyGRPC answers a call in the form of gRPC that has no message, only a status
// ("Trailers-Only"). Counters and log keep the status of HTTP.
func (p *Proxy) replyGRPC(x *engine.Exchange, s *passage, status int) {
	s.status = status
	s.page = strconv.AppendInt(s.page[:0], grpcStatus(status), 10)
	x.Reply(200, "", nil)
	f := &x.Response.Fields
	f.AddString(engine.ContentType, grpcType)
	f.AddName(grpcStatusField, s.page)
	s.page = append(s.page[:0], engine.StatusText(status)...)
	s.page = append(append(append(s.page, " (request "...), s.id[:]...), ')')
	f.AddName(grpcMessageField, s.page)
}
