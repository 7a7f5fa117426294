package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// v2 makes a header of version 2: command and family bytes, and what follows the length.
func v2(command, family byte, body string) string {
	b := append([]byte(proxySignature), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(body)))) + body
}

const (
	addrs4    = "\xc0\x00\x02\x01\xc6\x33\x64\x02\xd9\x03\x01\xbb" // 192.0.2.1:55555 198.51.100.2:443
	addrs6    = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xd9\x03\x01\xbb"
	mapped    = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x02\xd9\x03\x01\xbb"
	noop      = "\x04\x00\x00"
	authority = "\x02\x00\x09a.example"
)

// summed is a header of version 2 with a TLV of the right checksum, changed by xor.
func summed(xor byte) string {
	b := []byte(v2(0x21, 0x11, addrs4+authority+"\x03\x00\x04\x00\x00\x00\x00"))
	binary.BigEndian.PutUint32(b[len(b)-4:], proxyChecksum(b, len(b)-4))
	b[len(b)-1] ^= xor
	return string(b)
}

var proxyHeaders = []struct {
	name, in string
	from, to string // "": those of the connection count
	err      error
}{
	{"v1 TCP4", "PROXY TCP4 192.0.2.1 198.51.100.2 55555 443\r\n", "192.0.2.1:55555", "198.51.100.2:443", nil},
	{"v1 TCP6", "PROXY TCP6 2001:db8::1 2001:DB8:0::2 1 65535\r\n", "[2001:db8::1]:1", "[2001:db8::2]:65535", nil},
	{"v1 TCP6 mapped", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 1 2\r\n", "192.0.2.1:1", "198.51.100.2:2", nil},
	{"v1 port 0", "PROXY TCP4 192.0.2.1 198.51.100.2 0 0\r\n", "192.0.2.1:0", "198.51.100.2:0", nil},
	{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", "", "", nil},
	{"v1 UNKNOWN with more", "PROXY UNKNOWN ffff:f:f ffff:f 65535 65535\r\n", "", "", nil},
	{"v1 longest", "PROXY UNKNOWN " + strings.Repeat("x", maxProxyV1-16) + "\r\n", "", "", nil},
	{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("x", maxProxyV1-15) + "\r\n", "", "", errProxyLine},
	{"v1 endless", "PROXY TCP4 " + strings.Repeat("1", 200), "", "", errProxyLine},
	{"v1 bare LF", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", "", "", errProxyLine},
	{"v1 nothing", "PROXY \r\n", "", "", errProxyLine},
	{"v1 nothing at all", "PROXY \n", "", "", errProxyLine},
	{"v1 two spaces", "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n", "", "", errProxyLine},
	{"v1 space at the end", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n", "", "", errProxyLine},
	{"v1 a tab", "PROXY TCP4 192.0.2.1\t198.51.100.2 1 2\r\n", "", "", errProxyLine},
	{"v1 lower case", "PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n", "", "", errProxyLine},
	{"v1 lower case keyword", "proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n", "", "", errProxySignature},
	{"v1 UDP", "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", "", "", errProxyLine},
	{"v1 a family alone", "PROXY TCP4\r\n", "", "", errProxyLine},
	{"v1 a port is missing", "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n", "", "", errProxyLine},
	{"v1 a word too many", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n", "", "", errProxyLine},
	{"v1 port too large", "PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n", "", "", errProxyLine},
	{"v1 port with zeros", "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", "", "", errProxyLine},
	{"v1 port with a sign", "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n", "", "", errProxyLine},
	{"v1 no address", "PROXY TCP4 a.example 198.51.100.2 1 2\r\n", "", "", errProxyLine},
	{"v1 octet with zeros", "PROXY TCP4 192.0.02.1 198.51.100.2 1 2\r\n", "", "", errProxyLine},
	{"v1 octet too large", "PROXY TCP4 192.0.256.1 198.51.100.2 1 2\r\n", "", "", errProxyLine},
	{"v1 other family", "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "", "", errProxyLine},
	{"v1 other family, the other way", "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n", "", "", errProxyLine},
	{"v1 zone", "PROXY TCP6 fe80::1%eth0 2001:db8::2 1 2\r\n", "", "", errProxyLine},
	{"v1 in brackets", "PROXY TCP6 [2001:db8::1] [2001:db8::2] 1 2\r\n", "", "", errProxyLine},
	{"v2 TCP4", v2(0x21, 0x11, addrs4), "192.0.2.1:55555", "198.51.100.2:443", nil},
	{"v2 TCP6", v2(0x21, 0x21, addrs6), "[2001:db8::1]:55555", "[2001:db8::2]:443", nil},
	{"v2 TCP6 mapped", v2(0x21, 0x21, mapped), "192.0.2.1:55555", "198.51.100.2:443", nil},
	{"v2 TLVs", v2(0x21, 0x11, addrs4+authority+noop+noop), "192.0.2.1:55555", "198.51.100.2:443", nil},
	{"v2 checksum", summed(0), "192.0.2.1:55555", "198.51.100.2:443", nil},
	{"v2 wrong checksum", summed(1), "", "", errProxyChecksum},
	{"v2 short checksum", v2(0x21, 0x11, addrs4+"\x03\x00\x03\x00\x00\x00"), "", "", errProxyChecksum},
	{"v2 TLV cut", v2(0x21, 0x11, addrs4+"\x04\x00"), "", "", errProxyLength},
	{"v2 TLV too long", v2(0x21, 0x11, addrs4+"\x04\x00\x01"), "", "", errProxyLength},
	{"v2 LOCAL", v2(0x20, 0x00, ""), "", "", nil},
	{"v2 LOCAL with addresses", v2(0x20, 0x11, addrs4), "", "", nil},
	{"v2 LOCAL with anything", v2(0x20, 0xff, "anything"), "", "", nil},
	{"v2 UNSPEC", v2(0x21, 0x00, ""), "", "", nil},
	{"v2 UNSPEC with more", v2(0x21, 0x00, noop), "", "", nil},
	{"v2 Unix", v2(0x21, 0x31, strings.Repeat("\x00", 216)), "", "", nil},
	{"v2 Unix, short", v2(0x21, 0x31, strings.Repeat("\x00", 215)), "", "", errProxyLength},
	{"v2 UDP", v2(0x21, 0x12, addrs4), "", "", errProxyFamily},
	{"v2 unknown family", v2(0x21, 0x41, addrs6), "", "", errProxyFamily},
	{"v2 TCP4 short", v2(0x21, 0x11, addrs4[1:]), "", "", errProxyLength},
	{"v2 TCP6 short", v2(0x21, 0x21, addrs4), "", "", errProxyLength},
	{"v2 version 1", v2(0x11, 0x11, addrs4), "", "", errProxyVersion},
	{"v2 version 3", v2(0x31, 0x11, addrs4), "", "", errProxyVersion},
	{"v2 unknown command", v2(0x22, 0x11, addrs4), "", "", errProxyVersion},
	{"v2 longest", v2(0x20, 0, strings.Repeat("x", maxProxyV2-proxyFixed)), "", "", nil},
	{"v2 too long", v2(0x20, 0, strings.Repeat("x", maxProxyV2-proxyFixed+1)), "", "", errProxyLength},
	{"HTTP", "GET / HTTP/1.1\r\n", "", "", errProxySignature},
	{"TLS", "\x16\x03\x01\x02\x00\x01", "", "", errProxySignature},
	{"an empty line", "\r\nGET / HTTP/1.1\r\n", "", "", errProxySignature},
}

func TestParseProxyHeader(t *testing.T) {
	for _, tt := range proxyHeaders {
		t.Run(tt.name, func(t *testing.T) {
			const after = "GET / HTTP/1.1\r\n"
			h, n, err := parseProxyHeader([]byte(tt.in + after))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			if n != len(tt.in) {
				t.Errorf("it takes %d bytes, want %d", n, len(tt.in))
			}
			if h.known != (tt.from != "") || h.known && (h.source != netip.MustParseAddrPort(tt.from) || h.destination != netip.MustParseAddrPort(tt.to)) {
				t.Errorf("got %+v, want from %s to %s", h, tt.from, tt.to)
			}
			// Byte by byte it is asked for more, and never for too much.
			for i := range len(tt.in) {
				if _, n, err := parseProxyHeader([]byte(tt.in[:i])); n != 0 || err != nil {
					t.Fatalf("of %d bytes of %d it takes %d, %v", i, len(tt.in), n, err)
				}
			}
		})
	}
}

// Checksums of version 2 are CRC32c: the check value of RFC 3720 appendix B.4.
func TestProxyChecksumIsCastagnoli(t *testing.T) {
	zeros := make([]byte, 32)
	if got := proxyChecksum(zeros, 10); got != 0x8a9136aa {
		t.Errorf("got %#x", got)
	}
}

func TestWriteProxyHeader(t *testing.T) {
	v4, w4 := netip.MustParseAddrPort("192.0.2.1:55555"), netip.MustParseAddrPort("198.51.100.2:443")
	v6 := netip.MustParseAddrPort("[2001:db8::1]:55555")
	for _, tt := range []struct {
		from, to netip.AddrPort
		v1, v2   string
	}{
		{v4, w4, "PROXY TCP4 192.0.2.1 198.51.100.2 55555 443\r\n", v2(0x21, 0x11, addrs4)},
		{v6, v6, "PROXY TCP6 2001:db8::1 2001:db8::1 55555 55555\r\n", v2(0x21, 0x21, addrs6[:16]+addrs6[:16]+"\xd9\x03\xd9\x03")},
		{v6, w4, "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.2 55555 443\r\n", v2(0x21, 0x21, addrs6[:16]+mapped[16:])},
		{netip.AddrPort{}, w4, "PROXY UNKNOWN\r\n", v2(0x21, 0x00, "")},
	} {
		if got := string(writeProxyHeader(ProxyV1, tt.from, tt.to)); got != tt.v1 {
			t.Errorf("v1 %q, want %q", got, tt.v1)
		}
		if got := string(writeProxyHeader(ProxyV2, tt.from, tt.to)); got != tt.v2 {
			t.Errorf("v2 %q, want %q", got, tt.v2)
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	for _, tt := range proxyHeaders {
		f.Add([]byte(tt.in))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := parseProxyHeader(b)
		switch {
		case n < 0 || n > len(b) || n > maxProxyV2:
			t.Fatalf("it takes %d bytes of %d", n, len(b))
		case err != nil && (n != 0 || h != (proxyHeader{})):
			t.Fatalf("%v, and still %d bytes and %+v", err, n, h)
		case n == 0 && err == nil && len(b) >= maxProxyV2:
			t.Fatal("it wants more than the limit")
		case n == 0:
			return
		}
		// More behind it changes nothing, and less is not enough.
		if h2, n2, err := parseProxyHeader(append(bytes.Clone(b[:n]), "\r\nmore"...)); h2 != h || n2 != n || err != nil {
			t.Fatalf("with more behind it: %+v %d %v", h2, n2, err)
		}
		if _, n2, err := parseProxyHeader(b[:n-1]); n2 != 0 || err != nil {
			t.Fatalf("one byte less: %d %v", n2, err)
		}
		if !h.known {
			return
		}
		// What we write, we read.
		for _, v := range []ProxyVersion{ProxyV1, ProxyV2} {
			out := writeProxyHeader(v, h.source, h.destination)
			if h2, n2, err := parseProxyHeader(out); h2 != h || n2 != len(out) || err != nil {
				t.Fatalf("version %d: %q reads %+v %d %v, want %+v", v, out, h2, n2, err, h)
			}
		}
	})
}
