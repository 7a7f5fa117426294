package engine

// chunkDecoder takes the chunked coding apart (RFC 9112 section 7.1), byte by byte where
// it is syntax and slice by slice where it is data. It is a plain value: a copy of it
// can look ahead. Line ends other than CRLF are errors, extensions are read over and
// bounded, and a trailer section is collected for the caller.
type chunkDecoder struct {
	state     chunkState
	left      int64 // bytes of the current chunk still to come
	digits    int8  // of the chunk size, with its leading zeros
	extension int64 // bytes of extensions that data has not paid for
	trailer   int   // bytes of the trailer section
	lineStart bool  // in the trailer section: nothing of the line has come
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkSizeSpace
	chunkExtension
	chunkQuoted
	chunkQuotedPair
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer
	chunkTrailerLF
	chunkEnd
)

// Bounds of what chunked coding carries beside data. The extensions of a whole body are
// bounded, not those of one chunk: many small chunks with long extensions cost just as
// much. Each byte of data allows one more, so that a client that signs its chunks can send
// as many as it likes.
const (
	maxChunkExtensions = 16 << 10
	maxTrailer         = 8 << 10
)

// step reads input up to the end of the next piece of data or of the body. It returns
// the data found, which lies in input, and how many bytes of input it took. done says
// that the body has ended; the last CRLF has been taken. trailer collects the lines of
// the trailer section if it is not nil.
func (d *chunkDecoder) step(input []byte, trailer *[]byte) (data []byte, took int, done bool, err error) {
	for i := 0; i < len(input); {
		if d.state == chunkData {
			n := int(min(d.left, int64(len(input)-i)))
			data = input[i : i+n]
			if d.left -= int64(n); d.left == 0 {
				d.state = chunkDataCR
			}
			return data, i + n, false, nil
		}
		c := input[i]
		i++
		if err := d.syntax(c, trailer); err != nil {
			return nil, i, false, err
		}
		if d.state == chunkEnd {
			return nil, i, true, nil
		}
	}
	return nil, len(input), false, nil
}

// syntax takes one byte that is not data.
func (d *chunkDecoder) syntax(c byte, trailer *[]byte) error {
	switch d.state {
	case chunkSize:
		return d.size(c)
	case chunkSizeSpace:
		return d.space(c)
	case chunkExtension, chunkQuoted, chunkQuotedPair:
		return d.extend(c)
	case chunkSizeLF:
		if c != '\n' {
			return errChunk
		}
		d.digits = 0
		d.extension -= min(d.extension, d.left)
		d.state = chunkData
		if d.left == 0 {
			d.state, d.lineStart = chunkTrailer, true
		}
	case chunkDataCR:
		if c != '\r' {
			return errChunk
		}
		d.state = chunkDataLF
	case chunkDataLF:
		if c != '\n' {
			return errChunk
		}
		d.state = chunkSize
	case chunkTrailer, chunkTrailerLF:
		return d.trail(c, trailer)
	}
	return nil
}

func (d *chunkDecoder) size(c byte) error {
	if n := unhex(c); n >= 0 {
		if d.left >= 1<<56 || d.digits == maxZeros+15 { // 16^15 bytes are enough, and fit
			return errChunk
		}
		d.digits++
		d.left = d.left<<4 | int64(n)
		return nil
	}
	switch {
	case d.digits == 0:
		return errChunk
	case c == '\r':
		d.state = chunkSizeLF
	case c == ';':
		d.state = chunkExtension
	case c == ' ', c == '\t':
		d.state = chunkSizeSpace
	default:
		return errChunk
	}
	return nil
}

// space reads over the white space that may stand between a size and an extension, and
// nowhere else (RFC 9112 section 7.1.1).
func (d *chunkDecoder) space(c byte) error {
	if d.extension++; d.extension > maxChunkExtensions {
		return errChunk
	}
	switch c {
	case ' ', '\t':
		return nil
	case ';':
		d.state = chunkExtension
		return nil
	}
	return errChunk
}

// extend reads over chunk-ext. A quoted string may hold a semicolon but no line end, so
// nothing but CR can end the line.
func (d *chunkDecoder) extend(c byte) error {
	if d.extension++; d.extension > maxChunkExtensions {
		return errChunk
	}
	if c != '\r' && isControl(c) {
		return errChunk
	}
	switch {
	case c == '\r' && d.state == chunkExtension:
		d.state = chunkSizeLF
	case c == '\r':
		return errChunk
	case d.state == chunkQuotedPair:
		d.state = chunkQuoted
	case d.state == chunkQuoted && c == '\\':
		d.state = chunkQuotedPair
	case c == '"' && d.state == chunkQuoted:
		d.state = chunkExtension
	case c == '"':
		d.state = chunkQuoted
	}
	return nil
}

// trail collects the trailer section up to its empty line.
func (d *chunkDecoder) trail(c byte, trailer *[]byte) error {
	if d.trailer++; d.trailer > maxTrailer {
		return errChunk
	}
	if d.state == chunkTrailerLF {
		switch {
		case c != '\n':
			return errChunk
		case d.lineStart:
			d.state = chunkEnd
			return nil
		}
		d.state, d.lineStart = chunkTrailer, true
		keepTrailer(trailer, '\r', '\n')
		return nil
	}
	switch c {
	case '\r':
		d.state = chunkTrailerLF
	case '\n':
		return errChunk
	default:
		d.lineStart = false
		keepTrailer(trailer, c)
	}
	return nil
}

func keepTrailer(trailer *[]byte, b ...byte) {
	if trailer != nil {
		*trailer = append(*trailer, b...)
	}
}

// check decodes all of input ahead, without taking it: whether it is well-formed as far
// as it goes, and whether the body ends in it.
func (d chunkDecoder) check(input []byte) (done bool, err error) {
	for len(input) > 0 && !done && err == nil {
		var took int
		_, took, done, err = d.step(input, nil)
		input = input[took:]
	}
	return done, err
}

// appendChunkSize begins a chunk of n bytes.
func appendChunkSize(dst []byte, n int) []byte {
	const digits = "0123456789abcdef"
	var hex [16]byte
	i := len(hex)
	for {
		i--
		hex[i] = digits[n&15]
		if n >>= 4; n == 0 {
			break
		}
	}
	dst = append(dst, hex[i:]...)
	return append(dst, '\r', '\n')
}
