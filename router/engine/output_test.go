package engine

import (
	"io"
	"net"
	"testing"
	"time"
)

// A write that its reader takes in sips ends, if that is slower than it may be.
func TestAWriteThatDripsIsCut(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	reader, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			if _, err := io.CopyN(io.Discard, reader, 256<<10); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond) // the reader's pace
		}
	}()
	var w wire
	w.init(conn)
	var o output
	o.start(&w, 300*time.Millisecond)
	o.minRate = 1 << 30
	if err := o.write(make([]byte, 64<<20)); !isTimeout(err) {
		t.Errorf("got %v, want a time-out", err)
	}
	conn.Close()
	reader.Close()
	<-done
}
