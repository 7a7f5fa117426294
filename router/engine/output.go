package engine

import (
	"time"
)

// output collects what is to be written, so that a head and the first of its body leave
// in one write, and frames the body.
type output struct {
	to      *wire
	buf     []byte // borrowed; what waits to be written
	chunked bool
	timeout time.Duration // of one write
	by      time.Time     // of all writes; zero: any time
	minRate int           // bytes a second that have to be taken where a write has to wait; 0: any
	bytes   int64         // of content, that is without framing
	wrote   int64         // that left, framing and all

	failed   bool // what has been written is not all that should have been
	skip     int  // bytes of buf that have been foretold
	foretold bool // a byte has been, and nothing was written since
}

func (o *output) start(to *wire, timeout time.Duration) {
	*o = output{to: to, buf: o.buf[:0], timeout: timeout}
}

// borrow is what waits, in a buffer that can be appended to.
func (o *output) borrow() []byte {
	if o.buf == nil {
		o.buf = getHeadBuffer()[:0]
	}
	return o.buf
}

func (o *output) release() {
	if o.buf != nil {
		putBuffer(o.buf)
		o.buf = nil
	}
}

// room is what can be added before a write is needed.
func (o *output) room() int { return cap(o.buf) - len(o.buf) }

// body writes or collects one piece of content.
func (o *output) body(piece []byte) error {
	o.bytes += int64(len(piece))
	if o.chunked {
		return o.chunks(piece)
	}
	if len(piece) <= o.room() {
		o.buf = append(o.buf, piece...)
		return nil
	}
	if err := o.flush(); err != nil {
		return err
	}
	if len(piece) <= cap(o.buf)/2 {
		o.buf = append(o.buf, piece...)
		return nil
	}
	return o.write(piece)
}

// chunkOverhead is more than the framing of one chunk takes.
const chunkOverhead = 32

func (o *output) chunks(piece []byte) error {
	if need := len(o.buf) + len(piece) + 2*chunkOverhead; need > cap(o.buf) && cap(o.buf) < bodyBufferSize {
		bigger := append(getBuffer(need)[:0], o.buf...)
		o.release()
		o.buf = bigger
	}
	for len(piece) > 0 {
		if o.room() < 2*chunkOverhead {
			if err := o.flush(); err != nil {
				return err
			}
		}
		n := min(len(piece), o.room()-chunkOverhead)
		o.buf = appendChunkSize(o.buf, n)
		o.buf = append(o.buf, piece[:n]...)
		o.buf = append(o.buf, '\r', '\n')
		piece = piece[n:]
	}
	return nil
}

// end ends the body and writes all that waits. trailer holds field lines, each with its
// CRLF; it is sent only where the framing has a place for it.
func (o *output) end(trailer []byte) error {
	o.close(trailer)
	return o.flush()
}

// close is end without the write.
func (o *output) close(trailer []byte) {
	if o.chunked {
		o.buf = append(o.buf, "0\r\n"...)
		o.buf = append(o.buf, trailer...)
		o.buf = append(o.buf, '\r', '\n')
	}
}

// foretell writes a byte before its time.
func (o *output) foretell(b byte) error {
	err := o.write([]byte{b})
	o.foretold = true
	return err
}

// flush writes all that waits.
func (o *output) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	err := o.write(o.buf[o.skip:])
	o.skip = 0
	o.buf = o.buf[:0]
	return err
}

// write writes p. One who takes it slowly but steadily is fine: a time-out counts only if
// next to nothing could be written since the last one. Not so over TLS, where a write that
// timed out leaves a record cut in two.
func (o *output) write(p []byte) error {
	err := o.writeAll(p)
	o.failed = o.failed || err != nil
	return err
}

func (o *output) writeAll(p []byte) error {
	o.foretold = false
	for {
		now := time.Now()
		if expired(o.by, now) {
			return errTotal
		}
		o.to.armWrite(now, within(o.timeout, o.by, now))
		n, err := o.to.conn.Write(p)
		o.wrote += int64(n)
		if err == nil || o.to.tls != nil || !isTimeout(err) || tooSlow(n, o.minRate, o.timeout) {
			return err
		}
		p = p[n:]
	}
}
