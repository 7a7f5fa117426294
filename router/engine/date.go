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
func appendDate(b []byte, now time.Time) []byte { return append(b, dateNow(now).line...) }

// dateValue is the value of the field. It may be kept.
func dateValue(now time.Time) []byte {
	line := dateNow(now).line
	return line[len("Date: ") : len(line)-len("\r\n")]
}

func dateNow(now time.Time) *dateLine {
	d := lastDate.Load()
	if s := now.Unix(); d == nil || d.second != s {
		d = &dateLine{second: s, line: []byte("Date: " + now.UTC().Format(http.TimeFormat) + "\r\n")}
		lastDate.Store(d)
	}
	return d
}
