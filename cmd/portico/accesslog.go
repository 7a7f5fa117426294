package main

import (
	"errors"
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/portico-ingress/portico/router"
)

// accessLogFlush is how late a line may be. Lines are written many at a time: a write of its
// own for each would cost more than the request.
const accessLogFlush = time.Second

// accessLog writes one JSON object a line for each request.
type accessLog struct {
	core zapcore.Core
}

// newAccessLog returns nil for "off". done writes what is left, and closes the file.
func newAccessLog(where string, stdout, stderr io.Writer) (log router.AccessLog, done func() error, err error) {
	if where == "off" {
		return nil, func() error { return nil }, nil
	}
	w, closeFile, err := openAccessLog(where, stdout, stderr)
	if err != nil {
		return nil, nil, wrongValue("access-log", where, plain(err))
	}
	// The writer alone, without its Sync: a pipe has none, and a log need not be on the disk.
	buffered := &zapcore.BufferedWriteSyncer{WS: zapcore.AddSync(struct{ io.Writer }{w}), FlushInterval: accessLogFlush}
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		TimeKey:        "time",
		EncodeTime:     zapcore.RFC3339NanoTimeEncoder,
		EncodeDuration: zapcore.SecondsDurationEncoder,
	})
	log = &accessLog{zapcore.NewCore(encoder, buffered, zapcore.InfoLevel)}
	return log, func() error { return errors.Join(buffered.Stop(), closeFile()) }, nil
}

func openAccessLog(where string, stdout, stderr io.Writer) (w io.Writer, closeFile func() error, err error) {
	nothing := func() error { return nil }
	switch where {
	case "stdout":
		return stdout, nothing, nil
	case "stderr":
		return stderr, nothing, nil
	}
	f, err := os.OpenFile(where, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640) //nolint:gosec // log collectors run under another user of the group
	if err != nil {
		return nil, nil, err
	}
	return f, f.Close, nil
}

// Log writes one request.
func (l *accessLog) Log(r *router.Record) {
	// A full disk must not stop requests, and there is no other place to complain about it.
	_ = l.core.Write(zapcore.Entry{Time: r.Time}, []zap.Field{zap.Inline((*accessRecord)(r))})
}

// accessRecord is a Record that writes itself. Scripts read it: members are added and never
// renamed, and what is not known is left out.
type accessRecord router.Record

// MarshalLogObject writes the members in the order in which a person asks for them.
func (r *accessRecord) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	addBytes(enc, "request_id", r.ID)
	enc.AddString("client", r.Client.Addr().String())
	enc.AddUint16("client_port", r.Client.Port())
	addBytes(enc, "method", r.Method)
	enc.AddString("scheme", r.scheme())
	addBytes(enc, "host", r.Host)
	addBytes(enc, "path", r.Path)
	addBytes(enc, "query", r.Query)
	addString(enc, "protocol", r.Proto)
	enc.AddInt("status", r.Status)
	enc.AddDuration("duration", r.Duration)
	enc.AddInt64("bytes_received", r.BytesReceived)
	enc.AddInt64("bytes_sent", r.BytesSent)
	addBytes(enc, "user_agent", r.UserAgent)
	r.addRoute(enc)
	r.addUpstream(enc)
	addString(enc, "note", r.Note)
	return nil
}

func (r *accessRecord) scheme() string {
	if r.TLS {
		return "https"
	}
	return "http"
}

func (r *accessRecord) addRoute(enc zapcore.ObjectEncoder) {
	if r.Route == nil {
		return
	}
	addString(enc, "ingress", r.Route.Origin)
	addString(enc, "route", r.Route.Host+r.Route.Path)
	addString(enc, "service", r.Route.Service)
}

func (r *accessRecord) addUpstream(enc zapcore.ObjectEncoder) {
	if r.Tries == 0 {
		return
	}
	addString(enc, "endpoint", r.Upstream)
	enc.AddInt("tries", r.Tries)
	if r.UpstreamTime > 0 {
		enc.AddDuration("upstream_time", r.UpstreamTime)
	}
}

func addString(enc zapcore.ObjectEncoder, name, s string) {
	if s != "" {
		enc.AddString(name, s)
	}
}

func addBytes(enc zapcore.ObjectEncoder, name string, b []byte) {
	if len(b) > 0 {
		enc.AddByteString(name, b)
	}
}
