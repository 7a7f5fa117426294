package router

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"testing"
)

// BenchmarkProxyDownload is one answer after the other on one connection, in the ways its
// body can come. CPU is what counts: client and backend do as little as they can.
func BenchmarkProxyDownload(b *testing.B) {
	for _, size := range []int{64 << 10, 1 << 20} {
		for _, chunked := range []bool{false, true} {
			for _, secure := range []bool{false, true} {
				b.Run(fmt.Sprintf("%dKiB/chunked=%t/tls=%t", size>>10, chunked, secure), func(b *testing.B) {
					benchDownload(b, size, chunked, secure)
				})
			}
		}
	}
}

func benchDownload(b *testing.B, size int, chunked, secure bool) {
	b.Helper()
	f := benchSetup.withTLS(secure).start(b, downloads(b, size, chunked)).trusting(secure)
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if secure {
		conn = tls.Client(conn, f.tls)
	}
	buf := make([]byte, 256<<10)
	end := []byte("#")
	if chunked {
		end = []byte("#\r\n0\r\n\r\n")
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(benchRequest); err != nil {
			b.Fatal(err)
		}
		for tail := []byte(nil); !bytes.HasSuffix(tail, end); {
			n, err := conn.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			tail = append(tail, buf[max(0, n-len(end)):n]...)
			tail = tail[max(0, len(tail)-len(end)):]
		}
	}
}

// downloads answers with a body of one size, whose last byte is the only "#" in it.
func downloads(t testing.TB, size int, chunked bool) string {
	t.Helper()
	body := bytes.Repeat([]byte("x"), size)
	body[size-1] = '#'
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", size)
	if chunked {
		answer = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
		for len(body) > 0 {
			n := min(32<<10, len(body))
			answer = fmt.Appendf(answer, "%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
		answer = append(answer, "0\r\n\r\n"...)
	} else {
		answer = append(answer, body...)
	}
	return startBackend(t, func(c *upstreamConn) {
		buf := make([]byte, 16<<10)
		for {
			n, err := c.Conn.Read(buf)
			if err != nil || !bytes.HasSuffix(buf[:n], headEnd) {
				return
			}
			if _, err := c.Conn.Write(answer); err != nil {
				return
			}
		}
	}).addr
}
