package engine

// input is what has been read from a connection and not been used yet: buf[r:w].
//
// While a message is being handled its head is pinned: its fields lie in the buffer, so
// that reading more must not write over it. Reading goes on in a second buffer then.
type input struct {
	buf    []byte
	r, w   int
	pinned []byte // the buffer that holds the head, once buf is another one
	head   bool   // buf itself holds a head in use
}

// unread is what has been read and not been used.
func (in *input) unread() []byte { return in.buf[in.r:in.w] }

func (in *input) take(n int) { in.r += n }

// pin keeps what has been taken so far in place until unpin.
func (in *input) pin() { in.head = true }

// unpin lets go of a head. Nothing may use its fields afterwards.
func (in *input) unpin() {
	in.head = false
	if in.pinned != nil {
		putBuffer(in.pinned)
		in.pinned = nil
	}
}

// leaveHead is release, but for the buffer in which a head is pinned.
func (in *input) leaveHead() (head []byte) {
	switch {
	case in.pinned != nil:
		head, in.pinned = in.pinned, nil
	case in.head:
		head, in.buf = in.buf, nil
	}
	in.release()
	return head
}

// release gives all buffers back. What is unread is lost.
func (in *input) release() {
	in.unpin()
	if in.buf != nil {
		putBuffer(in.buf)
		in.buf = nil
	}
	in.r, in.w = 0, 0
}

// compact makes room behind a head that is not complete yet, by moving it to the front
// and then by doubling the buffer up to limit bytes. It reports false when there is no
// room to be had.
func (in *input) compact(limit int) bool {
	if in.w < len(in.buf) {
		return true
	}
	if in.r > 0 {
		in.w = copy(in.buf, in.unread())
		in.r = 0
		return true
	}
	if in.w >= limit {
		return false
	}
	bigger := make([]byte, min(2*len(in.buf), limit))
	copy(bigger, in.buf)
	putBuffer(in.buf)
	in.buf = bigger
	return true
}

// used lets go of the buffer of bytes that have all been used, before more of a body is read. A
// head in it stays where it is.
func (in *input) used() {
	switch {
	case in.head:
		in.head = false
		in.pinned = in.buf
	case in.buf != nil:
		putBuffer(in.buf)
	}
	in.buf, in.r, in.w = nil, 0, 0
}

// want is how much to read next of a body: where little came before, little is expected.
func (in *input) want() int {
	if in.w > 0 && in.w == len(in.buf) {
		return bodyBufferSize
	}
	return min(max(2*in.w, headBufferSize), bodyBufferSize)
}
