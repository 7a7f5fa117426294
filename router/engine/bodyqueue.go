package engine

// bodyQueue holds what has come of a body and was not taken yet, in borrowed buffers. Who
// writes bounds it: the window of a stream of HTTP/2, or a backlog.
type bodyQueue struct {
	buffers [][]byte // full but for the last
	r       int      // read of the first
}

func (q *bodyQueue) write(p []byte) {
	for len(p) > 0 {
		last := len(q.buffers) - 1
		if last < 0 || len(q.buffers[last]) == cap(q.buffers[last]) {
			q.buffers = append(q.buffers, getBuffer(len(p))[:0])
			last++
		}
		buf := q.buffers[last]
		n := copy(buf[len(buf):cap(buf)], p)
		q.buffers[last] = buf[:len(buf)+n]
		p = p[n:]
	}
}

// read takes as much as fits in p.
func (q *bodyQueue) read(p []byte) int {
	total := 0
	for len(p) > 0 && len(q.buffers) > 0 {
		first := q.buffers[0]
		n := copy(p, first[q.r:])
		p = p[n:]
		total += n
		if q.r += n; q.r == len(first) {
			putBuffer(first)
			q.shift()
		}
	}
	return total
}

// take gives away the first buffer, with what has not been read of it: buf[r:w].
func (q *bodyQueue) take() (buf []byte, r, w int) {
	first, r := q.buffers[0], q.r
	q.shift()
	return first[:cap(first)], r, len(first)
}

// shift forgets the first buffer.
func (q *bodyQueue) shift() {
	q.r = 0
	copy(q.buffers, q.buffers[1:])
	q.buffers[len(q.buffers)-1] = nil
	q.buffers = q.buffers[:len(q.buffers)-1]
}

// len is how much there is.
func (q *bodyQueue) len() int {
	n := -q.r
	for _, buf := range q.buffers {
		n += len(buf)
	}
	return n
}

// empty reports whether there is nothing.
func (q *bodyQueue) empty() bool { return len(q.buffers) == 0 }

// release throws away what is left, and returns how much that was.
func (q *bodyQueue) release() int {
	n := q.len()
	for i, buf := range q.buffers {
		putBuffer(buf)
		q.buffers[i] = nil
	}
	q.buffers, q.r = q.buffers[:0], 0
	return n
}
