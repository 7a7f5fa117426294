package engine

import (
	"bytes"
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestNormalizePath(t *testing.T) {
	const refused = "refused"
	tests := [][2]string{
		{"/", "/"},
		{"/a/b", "/a/b"},
		{"/a/", "/a/"},
		{"//a//b//", "//a//b//"},
		{"/.well-known/x", "/.well-known/x"},
		{"/...", "/..."},
		{"/a..b/.c", "/a..b/.c"},
		{"/./a", "/a"},
		{"/a/.", "/a/"},
		{"/a/..", "/"},
		{"/a/../b", "/b"},
		{"/a/b/../../c", "/c"},
		{"/a/./b/./", "/a/b/"},
		{"//a/../b", "/b"},
		{"/a//../b", "/b"},
		{"/%61", "/a"},
		{"/%7e", "/~"},
		{"/a%2fb", "/a%2Fb"},
		{"/%c3%a9", "/%C3%A9"},
		{"/\xc3\xa9", "/%C3%A9"},
		{"/%2e%2e/x", refused},
		{"/a/%2E%2e/x", "/x"},
		{"/a/.%2e", "/"},
		{"/a b", refused},
		{"/a%20b", "/a%20b"},
		{"/{x}|\"<>^`", "/%7Bx%7D%7C%22%3C%3E%5E%60"},
		{"/a;b=c", "/a;b=c"},
		{"/a?b#c", "/a%3Fb%23c"},
		{"/%25", "/%25"},
		{"/%252e%252e/", "/%252e%252e/"},
		{"", refused},
		{"a", refused},
		{"*", refused},
		{"/..", refused},
		{"/a/../..", refused},
		{"/%", refused},
		{"/%2", refused},
		{"/%zz", refused},
		{"/%00", refused},
		{"/\\", refused},
		{"/a\x00", refused},
		{"/a\x7f", refused},
		{"/a\t", refused},
		{"/..%2fx", refused},
		{"/x%2f..%2f..", refused},
		{"/x%2F.", refused},
		{"/..%5cx", refused},
		{"/..;/x", refused},
		{"/.;a", refused},
		{"/..%3b/x", refused},
		{"/a/..;x=1/b", refused},
		{"/a%2f..;x/b", refused},
		{"/a%5c.;x", refused},
		{"/..%3Bx%2Fb", refused},
		{"/a;..%2Fb", "/a;..%2Fb"},
		{"/a%2f..b", "/a%2F..b"},
		{"/..a;b", "/..a;b"},
	}
	for _, tt := range tests {
		got, err := NormalizePath(nil, []byte(tt[0]))
		if err != nil {
			got = []byte(refused)
		}
		if string(got) != tt[1] {
			t.Errorf("%q: got %q (%v), want %q", tt[0], got, err, tt[1])
		}
	}
}

// FuzzNormalizePath: the result is in normal form for good, holds no dot segments however
// they are written, and means what the path means to the standard library.
func FuzzNormalizePath(f *testing.F) {
	for _, seed := range []string{"/", "/a/../b", "/%2e%2E/", "//a/.//b/..", "/%c3%a9/\xff", "/a%2f..%2fb", "/..;x", "/a/%2e", "/.a/..b/...", "/a%5c..%5cb", "/{}", "/%3b", "/a//"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		was := bytes.Clone(in)
		out, err := NormalizePath(make([]byte, 0, 16), in)
		if !bytes.Equal(in, was) {
			t.Fatalf("%q was changed to %q", was, in)
		}
		if err != nil {
			return
		}
		if out[0] != '/' || !isVisible(out) || bytes.ContainsAny(out, "\\?#") {
			t.Fatalf("%q became %q", in, out)
		}
		again, err := NormalizePath(nil, out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q became %q, and that %q, %v", in, out, again, err)
		}
		for segment := range strings.SplitSeq(string(out), "/") {
			whole, _ := url.PathUnescape(segment)
			for _, cut := range []string{whole, before(whole, ";")} {
				for piece := range strings.FieldsFuncSeq("x/"+cut+"/x", func(r rune) bool { return r == '/' || r == '\\' }) {
					if piece == "." || piece == ".." {
						t.Fatalf("%q became %q, which has a dot segment", in, out)
					}
				}
			}
		}
		if !bytes.Contains(in, []byte("//")) {
			compareClean(t, string(in), string(out))
		}
	})
}

func before(s, sep string) string {
	s, _, _ = strings.Cut(s, sep)
	return s
}

// compareClean: segment by segment, path.Clean comes to the same.
func compareClean(t *testing.T, in, out string) {
	t.Helper()
	segments := strings.Split(in, "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil {
			t.Fatalf("%q is accepted, url.PathUnescape says %v", in, err)
		}
		segments[i] = strings.ReplaceAll(plain, "/", "\x00") // an encoded slash is no slash
	}
	want := path.Clean(strings.Join(segments, "/"))
	segments = strings.Split(out, "/")
	for i, s := range segments {
		plain, _ := url.PathUnescape(s)
		segments[i] = strings.ReplaceAll(plain, "/", "\x00")
	}
	got := strings.Join(segments, "/")
	if got != "/" {
		got = strings.TrimSuffix(got, "/")
	}
	if got != want {
		t.Errorf("%q became %q; path.Clean has %q", in, got, want)
	}
}

func BenchmarkNormalizePath(b *testing.B) {
	for name, p := range map[string]string{
		"normal": "/api/v1/namespaces/default/pods/nginx-7d4", "dots": "/api/v1/./namespaces/../pods", "escapes": "/caf%c3%a9/%7euser/a%2fb",
	} {
		b.Run(name, func(b *testing.B) {
			in, dst := []byte(p), make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := NormalizePath(dst, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
