package engine

import (
	"bytes"
	"testing"
)

// FuzzFieldsAdd: whatever is added, it becomes one field line and nothing else.
func FuzzFieldsAdd(f *testing.F) {
	for _, seed := range [][2]string{{"X-A", "1"}, {"X-A", "1\r\nX-B: 2"}, {"X A", "x"}, {"X-A\r\nX-B", "x"}, {"", ""}, {"X-A", "\x00\x7f\t"}, {"Host", " a "}, {"X-\xe9", "x"}} {
		f.Add([]byte(seed[0]), []byte(seed[1]), uint8(Location))
	}
	f.Fuzz(func(t *testing.T, name, value []byte, id uint8) {
		var fields Fields
		n := 1
		if fields.AddName(name, value) {
			n++
		}
		fields.Add(FieldID(id%uint8(fieldIDs-1)+1), value)
		fields.AddString(Location, string(value))
		fields.Set(Location, value)
		if id%uint8(fieldIDs-1)+1 != uint8(Location) {
			n++
		}
		if bytes.EqualFold(name, []byte("Location")) {
			n--
		}
		if fields.Len() != n {
			t.Fatalf("%d fields, want %d", fields.Len(), n)
		}
		var again Fields
		if err := parseFieldLines(fields.appendTo(nil), &again, 100); err != nil || again.Len() != n {
			t.Errorf("%d fields were written as %q: %v", n, fields.appendTo(nil), err)
		}
	})
}

func TestHopByHop(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"the usual ones", "Connection: close\r\nKeep-Alive: x\r\nProxy-Connection: x\r\nTE: x\r\nUpgrade: x\r\nTransfer-Encoding: x\r\nA: 1\r\n", "A: 1\r\n"},
		{"those that are listed", "connection: b , C,\r\nA: 1\r\nB: 2\r\nc: 3\r\n", "A: 1\r\n"},
		{"listed before and after", "B: 1\r\nConnection: b\r\nB: 2\r\n", ""},
		{"not framing and target", "Connection: host, content-length\r\nHost: a\r\nContent-Length: 5\r\n", "Host: a\r\nContent-Length: 5\r\n"},
		{"a name that is part of another", "Connection: a\r\nAB: 1\r\n", "AB: 1\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f Fields
			if err := parseFieldLines([]byte(tt.in), &f, 100); err != nil {
				t.Fatal(err)
			}
			if err := f.dropHopByHop(mayTrailRequest); err != nil {
				t.Fatal(err)
			}
			if got := string(f.appendTo(nil)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestControlsAreFoundWhereverTheyStand(t *testing.T) {
	for n := range 40 {
		b := bytes.Repeat([]byte{'a'}, n)
		if hasControl(b) {
			t.Fatalf("found in %q", b)
		}
		for i := range n {
			for c := range 256 {
				b[i] = byte(c)
				if got, want := hasControl(b), c < ' ' && c != '\t' || c == 0x7f; got != want {
					t.Fatalf("%q: %t, want %t", b, got, want)
				}
			}
			b[i] = 'a'
		}
	}
}
