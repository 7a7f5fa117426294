package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What the backend answers: 200 bytes, and 1 MiB for /1m.
const (
	smallBody = 200
	largeBody = 1 << 20
	largePath = "/1m"
)

// serveBackend answers HTTP/1.1 at one address, with as little work as can be, and gRPC over
// HTTP/2 without TLS at another. At a socket it reads what is logged and throws it away.
func serveBackend(addrs []string) error {
	if len(addrs) != 3 {
		return errors.New("backend: want two addresses and a socket")
	}
	log, err := net.ListenPacket("unixgram", addrs[2])
	if err != nil {
		return err
	}
	go discard(log)
	ln, err := net.Listen("tcp", addrs[0])
	if err != nil {
		return err
	}
	go func() { _ = serveGRPC(addrs[1]) }() // its absence is seen by the probe
	small, large := answer(smallBody), answer(largeBody)
	for {
		conn, err := ln.Accept()
		if err != nil {
			return err
		}
		go answerAll(conn, small, large)
	}
}

func discard(log net.PacketConn) {
	for buf := make([]byte, 64<<10); ; {
		if _, _, err := log.ReadFrom(buf); err != nil {
			return
		}
	}
}

func answer(n int) []byte {
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: %d\r\n\r\n", n)
	return append([]byte(head), bytes.Repeat([]byte{'x'}, n)...)
}

// answerAll reads heads and looks at no more of them than the path.
func answerAll(conn net.Conn, small, large []byte) {
	defer conn.Close()
	buf, n := make([]byte, 16<<10), 0
	for {
		m, err := conn.Read(buf[n:])
		if err != nil {
			return
		}
		n += m
		for {
			end := bytes.Index(buf[:n], []byte("\r\n\r\n"))
			if end < 0 {
				break
			}
			body := small
			if bytes.HasPrefix(buf[:end], []byte("GET "+largePath+" ")) {
				body = large
			}
			if _, err := conn.Write(body); err != nil {
				return
			}
			n = copy(buf, buf[end+4:n])
		}
	}
}

// A unary call of gRPC: five bytes of prefix, and a message.
var grpcMessage = append([]byte{0, 0, 0, 0, 64}, bytes.Repeat([]byte{'m'}, 64)...)

// serveGRPC answers every call with a message of 64 bytes.
func serveGRPC(addr string) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{
		Addr: addr, Protocols: protocols, ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // a call that breaks has no answer
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = w.Write(grpcMessage)
			w.Header().Set("Grpc-Status", "0")
		}),
	}
	return s.ListenAndServe()
}

// freeAddress is one on loopback where nobody listens.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

func port(addr string) int {
	n, _ := strconv.Atoi(addr[strings.LastIndexByte(addr, ':')+1:])
	return n
}
