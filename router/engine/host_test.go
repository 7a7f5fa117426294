package engine

import "testing"

func TestParseAuthority(t *testing.T) {
	tests := []struct{ in, host, port string }{ // host "": refused
		{"h.test", "h.test", ""},
		{"H.Test:80", "h.test", "80"},
		{"h.test.", "h.test", ""},
		{"h.test:", "h.test", ""},
		{"a_b.test", "a_b.test", ""},
		{"127.0.0.1:8080", "127.0.0.1", "8080"},
		{"[::1]", "::1", ""},
		{"[::1]:443", "::1", "443"},
		{"[2001:DB8:0:0::1]", "2001:db8::1", ""},
		{"b\xc3\xbccher.test", "xn--bcher-kva.test", ""},
		{"B\xc3\x9cCHER.test:1", "xn--bcher-kva.test", "1"},
		{"xn--bcher-kva.test", "xn--bcher-kva.test", ""},
		{"", "", ""},
		{".", "", ""},
		{":80", "", ""},
		{"a..b", "", ""},
		{"a.b..", "", ""},
		{".a", "", ""},
		{"a:b", "", ""},
		{"a:99999", "", ""},
		{"a:000080", "", ""},
		{"a b", "", ""},
		{"a/b", "", ""},
		{"a@b", "", ""},
		{"[::1", "", ""},
		{"[::1]x", "", ""},
		{"[::1%25a]", "", ""},
		{"[1.2.3.4]", "", ""},
		{"::1", "", ""},
		{"\xff", "", ""},
		{"a%41", "", ""},
	}
	for _, tt := range tests {
		host, port, err := parseAuthority(nil, []byte(tt.in))
		if err != nil {
			host, port = nil, nil
		}
		if string(host) != tt.host || string(port) != tt.port {
			t.Errorf("%q: host %q, port %q (%v), want %q, %q", tt.in, host, port, err, tt.host, tt.port)
		}
	}
}
