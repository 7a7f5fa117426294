package engine

import "sync"

// Buffers come in three sizes: one that nearly every head fits in, one for a piece of a body,
// and one for bodies that flow. A head that needs more grows by doubling, and such a buffer
// is left to the garbage collector afterwards: it is rare, and keeping it would let one
// client make every pooled buffer big.
const (
	headBufferSize  = 8 << 10
	pieceBufferSize = 16 << 10
	bodyBufferSize  = 64 << 10
)

var (
	headBuffers  = sync.Pool{New: func() any { return new([headBufferSize]byte) }}
	pieceBuffers = sync.Pool{New: func() any { return new([pieceBufferSize]byte) }}
	bodyBuffers  = sync.Pool{New: func() any { return new([bodyBufferSize]byte) }}
)

func getHeadBuffer() []byte { return headBuffers.Get().(*[headBufferSize]byte)[:] }

func getBodyBuffer() []byte { return bodyBuffers.Get().(*[bodyBufferSize]byte)[:] }

// getBuffer returns the smallest buffer that holds n bytes, or the largest there is.
func getBuffer(n int) []byte {
	switch {
	case n <= headBufferSize:
		return getHeadBuffer()
	case n <= pieceBufferSize:
		return pieceBuffers.Get().(*[pieceBufferSize]byte)[:]
	}
	return getBodyBuffer()
}

// putBuffer gives back a buffer from one of these; nothing may use it afterwards. Tests
// with the race detector make sure of that: there the bytes are overwritten.
func putBuffer(b []byte) {
	if poison {
		spoil(b[:cap(b)])
	}
	switch cap(b) {
	case headBufferSize:
		headBuffers.Put((*[headBufferSize]byte)(b[:headBufferSize]))
	case pieceBufferSize:
		pieceBuffers.Put((*[pieceBufferSize]byte)(b[:pieceBufferSize]))
	case bodyBufferSize:
		bodyBuffers.Put((*[bodyBufferSize]byte)(b[:bodyBufferSize]))
	}
}

// poisoned is what a buffer that was given back holds under poison: no token, no text, no
// end of a line.
const poisoned = 0xDB

func spoil(b []byte) {
	for i := range b {
		b[i] = poisoned
	}
}
