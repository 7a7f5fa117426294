package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// webSocket sends every frame back to who sent it (RFC 6455).
func (e *echo) webSocket(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" {
		http.Error(w, "this is a WebSocket", http.StatusUpgradeRequired)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = conn.Close() }()
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, _ = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"X-Echo-Pod: %s\r\nSec-WebSocket-Accept: %s\r\n\r\n", e.pod, base64.StdEncoding.EncodeToString(sum[:]))
	for rw.Flush() == nil {
		if err := echoFrame(rw); err != nil {
			break
		}
	}
	_ = rw.Flush()
}

// echoFrame reads one frame and writes it back without the client's mask. The
// frame that closes ends the connection once it is answered.
func echoFrame(rw *bufio.ReadWriter) error {
	const (
		opClose, opPing, opPong = 8, 9, 10
		maxPayload              = 1 << 20
	)
	head := make([]byte, 2)
	if _, err := io.ReadFull(rw, head); err != nil {
		return err
	}
	size, masked := uint64(head[1]&0x7f), head[1]&0x80 != 0
	if n := map[uint64]int{126: 2, 127: 8}[size]; n > 0 {
		long := make([]byte, 8)
		if _, err := io.ReadFull(rw, long[8-n:]); err != nil {
			return err
		}
		size = binary.BigEndian.Uint64(long)
	}
	if size > maxPayload {
		return fmt.Errorf("frame of %d bytes", size)
	}
	var mask [4]byte
	if masked {
		if _, err := io.ReadFull(rw, mask[:]); err != nil {
			return err
		}
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(rw, payload); err != nil {
		return err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	op := head[0] & 0x0f
	if op == opPing {
		head[0] = head[0]&0xf0 | opPong
	}
	if _, err := rw.Write(appendFrame(nil, head[0], payload)); err != nil {
		return err
	}
	if op == opClose {
		return io.EOF
	}
	return nil
}

// appendFrame appends a server's frame to b.
func appendFrame(b []byte, first byte, payload []byte) []byte {
	switch n := len(payload); {
	case n < 126:
		b = append(b, first, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, first, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, first, 127), uint64(n))
	}
	return append(b, payload...)
}
