package engine

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// What is written as an index stands for the same field with a decoder that has seen all blocks,
// whatever has come into the table meanwhile and whenever its size has changed.
func TestH2EncoderRepeats(t *testing.T) {
	var e h2encoder
	e.start()
	var got []string
	dec := hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, f.Name+"="+f.Value) })
	dice := rand.New(rand.NewPCG(1, 2))
	for block := range 3000 {
		if dice.IntN(10) == 0 {
			size := uint32(dice.IntN(4097))
			dec.SetAllowedMaxDynamicTableSize(4096)
			e.limit(size)
		}
		var r Response
		r.Status = 200
		want := []string{":status=200"}
		add := func(name, value string) {
			r.Fields.add([]byte(name), []byte(value))
			want = append(want, name+"="+value)
		}
		add("date", fmt.Sprint(block/50))
		for _, name := range []string{"server", "content-type", "x-own", "vary", "grpc-status", "via", "content-length"} {
			if dice.IntN(3) > 0 {
				add(name, fmt.Sprint(name, dice.IntN(3)*dice.IntN(2)))
			}
		}
		e.head(&r)
		got = nil
		if _, err := dec.Write(e.block.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := dec.Close(); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("block %d: %v, want %v", block, got, want)
		}
	}
}

func BenchmarkH2EncodeAnswer(b *testing.B) {
	var e h2encoder
	e.start()
	var r Response
	r.Status = 200
	for _, f := range [][2]string{
		{"content-type", "text/html; charset=utf-8"},
		{"date", "Thu, 01 Jan 2026 00:00:00 GMT"},
		{"content-length", "200"},
		{"cache-control", "no-cache"},
		{"server", "portico"},
	} {
		r.Fields.add([]byte(f[0]), []byte(f[1]))
	}
	b.ReportAllocs()
	for b.Loop() {
		e.head(&r)
	}
}
