package engine

import (
	"net/http"
	"sync/atomic"
	"time"
)

// dateLine is a Date field line, good for one second.
type dateLine struct {
	second int64
	line   []byte
}

var lastDate atomic.Pointer[dateLine]

// appendDate adds a Date field line (RFC 9110 section 6.6.1).
func appendDate(b []byte, now time.Time) []byte {
	d := lastDate.Load()
	if s := now.Unix(); d == nil || d.second != s {
		d = &dateLine{second: s, line: []byte("Date: " + now.UTC().Format(http.TimeFormat) + "\r\n")}
		lastDate.Store(d)
	}
	return append(b, d.line...)
}
