package main

import (
	"bufio"
	"bytes"
	"net"
	"strconv"
	"strings"
	"sync"
)

// tap is a connection that keeps the heads of the HTTP/1 requests passing
// through it as they came: the server's own headers have lost their spelling
// and their order. It follows just enough of the framing to know where a head
// begins, and hands out nothing of what follows a head together with it.
type tap struct {
	net.Conn
	br *bufio.Reader

	mode tapMode
	line []byte // the head, or the line, read so far
	left int64  // bytes left of a body or a chunk

	mu    sync.Mutex
	heads []string
}

type tapMode int

const (
	inHead      tapMode = iota
	inBody              // of a length known
	inChunkSize         // the line with a chunk's size
	inChunk             // a chunk and the line end after it
	inTrailers          // lines up to an empty one
	inStream            // no longer HTTP/1
)

type tapListener struct{ net.Listener }

func (l tapListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tap{Conn: c, br: bufio.NewReader(c)}, nil
}

// nextHead is the head of the oldest request that was not asked for yet.
func (t *tap) nextHead() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.heads) == 0 {
		return ""
	}
	h := t.heads[0]
	t.heads = t.heads[1:]
	return h
}

func (t *tap) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if _, err := t.br.Peek(1); err != nil {
		return 0, err
	}
	buf, _ := t.br.Peek(min(t.br.Buffered(), len(p)))
	n := t.follow(buf)
	copy(p, buf[:n])
	_, _ = t.br.Discard(n)
	return n, nil
}

// follow takes note of buf and says how much of it may be handed out at once.
func (t *tap) follow(buf []byte) int {
	switch t.mode {
	case inBody, inChunk:
		n := int(min(int64(len(buf)), t.left))
		if t.left -= int64(n); t.left == 0 {
			if t.mode == inBody {
				t.mode = inHead
			} else {
				t.mode = inChunkSize
			}
		}
		return n
	case inStream:
		return len(buf)
	}
	// What is left is made of lines: hand out one at most.
	n := bytes.IndexByte(buf, '\n') + 1
	if n == 0 {
		t.line = append(t.line, buf...)
		return len(buf)
	}
	t.line = append(t.line, buf[:n]...)
	t.endLine()
	return n
}

// endLine decides what comes after the line that just ended.
func (t *tap) endLine() {
	switch t.mode {
	case inHead:
		if !bytes.HasSuffix(t.line, []byte("\r\n\r\n")) {
			return // the head goes on
		}
		t.endHead(string(t.line))
	case inChunkSize:
		size, _, _ := strings.Cut(strings.TrimSpace(string(t.line)), ";")
		n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 62)
		switch {
		case err != nil:
			t.mode = inStream
		case n == 0:
			t.mode = inTrailers
		default:
			t.mode, t.left = inChunk, n+2
		}
	case inTrailers:
		if string(t.line) == "\r\n" {
			t.mode = inHead
		}
	}
	t.line = t.line[:0]
}

func (t *tap) endHead(head string) {
	t.mu.Lock()
	t.heads = append(t.heads, head)
	t.mu.Unlock()
	if strings.HasPrefix(head, "PRI ") {
		t.mode = inStream // HTTP/2
		return
	}
	for line := range strings.SplitSeq(head, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "upgrade":
			t.mode = inStream
			return
		case "transfer-encoding":
			t.mode = inChunkSize
			return
		case "content-length":
			if n, err := strconv.ParseInt(value, 10, 62); err == nil && n > 0 {
				t.mode, t.left = inBody, n
			}
		}
	}
}
