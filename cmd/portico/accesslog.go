package main

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/portico-ingress/portico/router"
)

// accessLogFlush is how late a line may be. Lines are written many at a time: a write of its
// own for each would cost more than the request.
const accessLogFlush = time.Second

// accessLog writes one JSON object a line for each request.
type accessLog struct {
	to    io.Writer
	lines sync.Pool // of *accessLine
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
	log = &accessLog{to: buffered, lines: sync.Pool{New: func() any { return newAccessLine() }}}
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

// maxAccessLine is what is kept of a line's memory.
const maxAccessLine = 4 << 10

// Log writes one request.
func (l *accessLog) Log(r *router.Record) {
	line := l.lines.Get().(*accessLine)
	*line = append((*accessRecord)(r).append(append((*line)[:0], '{')), '}', '\n')
	// A full disk must not stop requests, and there is no other place to complain about it.
	_, _ = l.to.Write(*line)
	if cap(*line) <= maxAccessLine {
		l.lines.Put(line)
	}
}

// accessRecord is a Record that writes itself. Scripts read it: members are added and never
// renamed, and what is not known is left out.
type accessRecord router.Record

// append adds the members in the order in which a person asks for them.
func (r *accessRecord) append(l accessLine) accessLine {
	l = l.time("time", r.Time)
	l = appendText(l, "request_id", r.ID)
	l = append(r.Client.Addr().AppendTo(append(l.name("client"), '"')), '"')
	l = l.int("client_port", int64(r.Client.Port()))
	l = appendText(l, "method", r.Method)
	l = appendText(l, "scheme", r.scheme())
	l = appendText(l, "host", r.Host)
	l = appendText(l, "path", r.Path)
	l = appendText(l, "query", r.Query)
	l = appendText(l, "protocol", r.Proto)
	l = l.int("status", int64(r.Status))
	l = l.duration("duration", r.Duration)
	l = l.int("bytes_received", r.BytesReceived)
	l = l.int("bytes_sent", r.BytesSent)
	l = appendText(l, "user_agent", r.UserAgent)
	l = r.appendRoute(l)
	l = r.appendUpstream(l)
	return appendText(l, "note", r.Note)
}

func (r *accessRecord) scheme() string {
	if r.TLS {
		return "https"
	}
	return "http"
}

func (r *accessRecord) appendRoute(l accessLine) accessLine {
	if r.Route == nil {
		return l
	}
	l = appendText(l, "ingress", r.Route.Origin)
	if r.Route.Host != "" || r.Route.Path != "" {
		l = append(l.name("route"), '"')
		l = append(appendEscaped(appendEscaped(l, r.Route.Host), r.Route.Path), '"')
	}
	return appendText(l, "service", r.Route.Service)
}

func (r *accessRecord) appendUpstream(l accessLine) accessLine {
	if r.Tries == 0 {
		return l
	}
	l = appendText(l, "endpoint", r.Upstream)
	l = l.int("tries", int64(r.Tries))
	if r.UpstreamTime > 0 {
		l = l.duration("upstream_time", r.UpstreamTime)
	}
	return l
}
