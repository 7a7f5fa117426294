package engine

// h2source is what both ends of a connection of HTTP/2 read through: bytes for the framer, and
// header blocks from it. It is for the goroutine that reads.
type h2source struct {
	under  *wire
	in     input        // what was read and is no frame yet
	more   func() error // fills in, after all that came before has been handled
	blocks h2blocks
}

// h2blocks takes header blocks apart.
type h2blocks interface {
	write(fragment []byte) error
	end() error
}

// Read gives the framer what was read, and has more read.
func (s *h2source) Read(p []byte) (int, error) {
	if len(s.in.unread()) == 0 {
		if err := s.more(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.in.unread())
	s.in.take(n)
	return n, nil
}

// widen makes the buffer a large one where the last read has filled it.
func (s *h2source) widen() {
	full := s.in.w > 0 && s.in.w == len(s.in.buf)
	if full && len(s.in.buf) < bodyBufferSize {
		s.in.release()
		s.in.buf = getBodyBuffer()
	}
}

// refill reads once. All that was there has been used.
func (s *h2source) refill() (int, error) {
	if s.in.buf == nil {
		s.in.buf = getHeadBuffer()
	}
	n, err := s.under.conn.Read(s.in.buf)
	s.in.r, s.in.w = 0, n
	return n, err
}

// block takes one fragment of a header block.
func (s *h2source) block(fragment []byte, end bool) error {
	if err := s.blocks.write(fragment); err != nil || !end {
		return err
	}
	return s.blocks.end()
}
