package engine

import (
	"errors"
	"io"
)

// body takes one message body out of an input.
type body struct {
	in      *input
	framing framing
	left    int64 // of byLength
	chunks  chunkDecoder
	ended   bool
	trailer []byte // field lines of a trailer section
	bytes   int64  // of content that was handed out
	fields  Fields // of the trailer, while it is looked at
	allowed []byte // what of it may travel on
}

func (b *body) start(in *input, kind framing, length int64) {
	*b = body{in: in, framing: kind, left: length, trailer: b.trailer[:0], fields: b.fields, allowed: b.allowed[:0]}
	b.ended = kind == noBody || kind == byLength && length == 0
}

// buffered returns the next piece of content that has been read already, which is valid
// until the input is filled again. Nothing and no error means that more must be read,
// unless the body has ended.
func (b *body) buffered() ([]byte, error) {
	for !b.ended {
		unread := b.in.unread()
		if len(unread) == 0 {
			return nil, nil
		}
		piece, err := b.piece(unread)
		if err != nil || len(piece) > 0 {
			b.bytes += int64(len(piece))
			return piece, err
		}
	}
	return nil, nil
}

func (b *body) piece(unread []byte) ([]byte, error) {
	switch b.framing {
	case byLength:
		n := int(min(b.left, int64(len(unread))))
		b.in.take(n)
		b.left -= int64(n)
		b.ended = b.left == 0
		return unread[:n], nil
	case byChunks:
		data, took, done, err := b.chunks.step(unread, &b.trailer)
		b.in.take(took)
		b.ended = done
		return data, err
	default: // untilClose
		b.in.take(len(unread))
		return unread, nil
	}
}

// filled judges how reading more has ended. The end of what is read is an error unless it
// ends the body.
func (b *body) filled(err error) error {
	if errors.Is(err, io.EOF) {
		if b.framing == untilClose {
			b.ended = true
			return nil
		}
		return errCutShort
	}
	return err
}

// complete reports whether all of the body has been read from the connection, so that
// handing it out cannot block, and whether what has been read of it is well-formed.
func (b *body) complete() (bool, error) {
	switch b.framing {
	case byLength:
		return b.left <= int64(len(b.in.unread())), nil
	case byChunks:
		return b.chunks.check(b.in.unread())
	}
	return b.ended, nil
}
