package engine

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// readerConn is a connection from which bytes come, and which takes everything.
type readerConn struct {
	io.Reader
}

func (readerConn) Write(p []byte) (int, error)      { return len(p), nil }
func (readerConn) Close() error                     { return nil }
func (readerConn) LocalAddr() net.Addr              { return nil }
func (readerConn) RemoteAddr() net.Addr             { return nil }
func (readerConn) SetDeadline(time.Time) error      { return nil }
func (readerConn) SetReadDeadline(time.Time) error  { return nil }
func (readerConn) SetWriteDeadline(time.Time) error { return nil }

// writerConn keeps what a client says first.
type writerConn struct {
	readerConn
	said *bytes.Buffer
}

func (w writerConn) Write(p []byte) (int, error) { return w.said.Write(p) }

// helloOf is what a crypto/tls client says first.
func helloOf(config *tls.Config) []byte {
	var said bytes.Buffer
	c := tls.Client(writerConn{readerConn{strings.NewReader("")}, &said}, config)
	_ = c.HandshakeContext(context.Background()) // there is no answer
	return said.Bytes()
}

// heard is what crypto/tls's server makes of bytes, as far as it gets.
func heard(b []byte) (hello *tls.ClientHelloInfo) {
	errEnough := errors.New("that is all we wanted")
	c := tls.Server(readerConn{bytes.NewReader(b)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello = h
		return nil, errEnough
	}})
	_ = c.HandshakeContext(context.Background()) // it cannot succeed
	return hello
}

func (h clientHello) names() []string {
	var all []string
	for r := (helloReader{h.protocols, true}); len(r.b) > 0; {
		all = append(all, string(r.vector(1)))
	}
	return all
}

// fragment cuts one record into records of at most n bytes.
func fragment(record []byte, n int) []byte {
	var out []byte
	for part := range slices.Chunk(record[recordHeader:], n) {
		out = append(out, record[:3]...)
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(part))), part...)
	}
	return out
}

// extended is a ClientHello with these extensions, in one record.
func extended(extensions string) []byte {
	body := "\x03\x03" + strings.Repeat("r", 32) + "\x00" + "\x00\x02\x13\x01" + "\x01\x00"
	if extensions != "none" {
		body += string(binary.BigEndian.AppendUint16(nil, uint16(len(extensions)))) + extensions
	}
	message := append([]byte{typeClientHello, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(body)))...)
	message = append(message, body...)
	record := append([]byte{recordHandshake, 3, 1}, binary.BigEndian.AppendUint16(nil, uint16(len(message)))...)
	return append(record, message...)
}

// extension is one extension.
func extension(kind uint16, data string) string {
	b := binary.BigEndian.AppendUint16(nil, kind)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(data)))) + data
}

func vector16(s string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(len(s)))) + s
}

func nameExtension(name string) string {
	return extension(extensionName, vector16("\x00"+vector16(name)))
}

const grease = 0x1a1a

type helloCase struct {
	name string
	in   []byte
	want string // the server name
	alpn []string
	err  error
}

func helloCases() []helloCase {
	usual := helloOf(&tls.Config{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}})
	both := []string{"h2", "http/1.1"}
	long := strings.Repeat("a.", 126) + "b"
	return []helloCase{
		{"usual", usual, "a.example", both, nil},
		{"TLS 1.2", helloOf(&tls.Config{ServerName: "a.example", MaxVersion: tls.VersionTLS12}), "a.example", nil, nil},
		{"no SNI", helloOf(&tls.Config{InsecureSkipVerify: true}), "", nil, nil},
		{"in records of 100 bytes", fragment(usual, 100), "a.example", both, nil},
		{"the header of the message cut", fragment(usual, 64), "a.example", both, nil},
		{"upper case", extended(nameExtension("A.Example")), "A.Example", nil, nil},
		{"no extensions", extended("none"), "", nil, nil},
		{"empty extensions", extended(""), "", nil, nil},
		{"GREASE around it", extended(extension(grease, "") + nameExtension("a.example") + extension(grease+0x1010, "\x00")), "a.example", nil, nil},
		{"ECH: the outer name", extended(extension(0xfe0d, "\x00whatever") + nameExtension("public.example")), "public.example", nil, nil},
		{"longest name", extended(nameExtension(long)), long, nil, nil},
		{"another kind of name before", extended(extension(extensionName, vector16("\x01"+vector16("x")+"\x00"+vector16("a.example")))), "a.example", nil, nil},
		{"trailing dot", extended(nameExtension("a.example.")), "", nil, errHello},
		{"two names", extended(extension(extensionName, vector16("\x00"+vector16("a.example")+"\x00"+vector16("b.example")))), "", nil, errHello},
		{"two extensions", extended(nameExtension("a.example") + nameExtension("b.example")), "", nil, errHello},
		{"empty name", extended(nameExtension("")), "", nil, errHello},
		{"empty list", extended(extension(extensionName, "\x00\x00")), "", nil, errHello},
		{"no list", extended(extension(extensionName, "")), "", nil, errHello},
		{"bytes behind the list", extended(extension(extensionName, vector16("\x00"+vector16("a.example"))+"x")), "", nil, errHello},
		{"name longer than the list", extended(extension(extensionName, vector16("\x00\x00\xffa"))), "", nil, errHello},
		{"extension longer than all", extended("\x00\x00\x00\xff"), "", nil, errHello},
		{"ALPN: empty name", extended(extension(extensionALPN, vector16("\x00"))), "", nil, errHello},
		{"ALPN: empty list", extended(extension(extensionALPN, "\x00\x00")), "", nil, errHello},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), "", nil, errNotTLS},
		{"an alert", []byte("\x15\x03\x01\x00\x02\x01\x00"), "", nil, errNotTLS},
		{"a ServerHello", []byte("\x16\x03\x01\x00\x04\x02\x00\x00\x00"), "", nil, errNotTLS},
		{"an empty record", []byte("\x16\x03\x01\x00\x00"), "", nil, errNotTLS},
		{"a record too long", []byte("\x16\x03\x01\x40\x01\x01"), "", nil, errNotTLS},
		{"a message too long", []byte("\x16\x03\x01\x40\x00\x01\x01\x00\x00"), "", nil, errHelloSize},
		{"records of a byte", fragment(usual, 1), "", nil, errHelloSize},
	}
}

func TestParseClientHello(t *testing.T) {
	for _, tt := range helloCases() {
		t.Run(tt.name, func(t *testing.T) {
			h, complete, err := parseRecords(tt.in)
			if !errors.Is(err, tt.err) || complete != (tt.err == nil) {
				t.Fatalf("complete %v, error %v, want error %v", complete, err, tt.err)
			}
			if err != nil {
				return
			}
			if string(h.serverName) != tt.want || !slices.Equal(h.names(), tt.alpn) {
				t.Errorf("got %q %q, want %q %q", h.serverName, h.names(), tt.want, tt.alpn)
			}
			for i := range tt.in {
				if _, complete, err := parseRecords(tt.in[:i]); complete || err != nil {
					t.Fatalf("after %d bytes of %d: complete %v, error %v", i, len(tt.in), complete, err)
				}
			}
		})
	}
}

func TestParseClientHelloAllocatesNothing(t *testing.T) {
	b := helloOf(&tls.Config{ServerName: "a.example", NextProtos: []string{"h2"}})
	if n := testing.AllocsPerRun(100, func() { _, _, _ = parseRecords(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzClientHello holds our reading to that of crypto/tls: what it gets as far as asking for a
// configuration for, we read the same name and protocols of.
func FuzzClientHello(f *testing.F) {
	for _, c := range helloCases() {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, complete, err := parseRecords(b)
		if complete && err != nil {
			t.Fatalf("complete, and %v", err)
		}
		theirs := heard(b)
		if theirs == nil {
			return
		}
		if complete {
			if string(h.serverName) != theirs.ServerName || !slices.Equal(h.names(), theirs.SupportedProtos) {
				t.Fatalf("we read %q %q, crypto/tls %q %q", h.serverName, h.names(), theirs.ServerName, theirs.SupportedProtos)
			}
			return
		}
		// Stricter: alerts before it, records of no TLS version, and very many records.
		if !errors.Is(err, errNotTLS) && !errors.Is(err, errHelloSize) {
			t.Fatalf("crypto/tls reads a ClientHello for %q and we do not: %v", theirs.ServerName, err)
		}
	})
}

func BenchmarkParseClientHello(b *testing.B) {
	hello := helloOf(&tls.Config{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}})
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = parseRecords(hello)
	}
}
