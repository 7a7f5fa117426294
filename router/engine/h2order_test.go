package engine

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// FuzzH2Order compares with hpack.Decoder, which sees the same as long as its table is not empty, and
// takes blocks in one piece and byte by byte.
func FuzzH2Order(f *testing.F) {
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, value := range []string{"", "a", string(bytes.Repeat([]byte("\x20"), 126)), string(bytes.Repeat([]byte("\x20"), 127)), string(bytes.Repeat([]byte("\xff"), 600))} {
		for _, name := range []string{":path", "x", "accept", string(bytes.Repeat([]byte("y"), 200))} {
			_ = enc.WriteField(hpack.HeaderField{Name: name, Value: value})
			_ = enc.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: true})
		}
	}
	for _, size := range []string{"", "\x20", "\x3f\xe1\x1f", "\x20\x3f\xe1\x1f"} {
		f.Add([]byte(size + block.String()))
		f.Add([]byte(block.String() + size))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var whole, pieces h2order
		found, again := whole.broken(data), false
		for i := range data {
			again = again || pieces.broken(data[i:i+1])
		}
		if found != again {
			t.Fatalf("in one piece %t, byte by byte %t", found, again)
		}
		if len(data) == 0 || data[0]>>5 == 1 || len(data) > 2000 {
			return // it may empty the table
		}
		dec := hpack.NewDecoder(4096, func(hpack.HeaderField) {})
		_, _ = dec.Write([]byte("\x40\x01a\x01b")) // so that there is something in it
		_ = dec.Close()
		_, err := dec.Write(data)
		if err == nil {
			err = dec.Close()
		}
		switch late := err != nil && strings.Contains(err.Error(), "size update MUST"); {
		case late && !found, err == nil && found:
			t.Fatalf("the decoder says %v", err)
		case err == nil && whole.state != h2orderField:
			t.Fatalf("at the end of the block something is missing: %+v", whole)
		}
	})
}
