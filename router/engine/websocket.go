package engine

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 wants it, as a proof that the server speaks WebSocket and no more
	"encoding/base64"
	"slices"
)

// bootstrap makes of an extended CONNECT (RFC 8441 section 5) the request that begins a
// WebSocket over HTTP/1.1 (RFC 6455 section 4.1). The key is ours: over HTTP/2 there is none.
func (r *Request) bootstrap(ends bool) *Refusal {
	switch {
	case string(r.protocol) != "websocket":
		return &Refusal{Status: 501, Reason: ":protocol is not websocket"} // RFC 9220 section 3
	case ends:
		return badRequest("a WebSocket that has ended before it begins")
	case r.Fields.Has(ContentLength):
		return badRequest("Content-Length in an extended CONNECT")
	}
	r.Method = []byte("GET")
	if refusal := r.frameH2(true); refusal != nil {
		return refusal
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	r.webSocketKey = base64.StdEncoding.AppendEncode(nil, nonce[:])
	r.Fields.Del(SecWebSocketAccept)
	r.Fields.Set(SecWebSocketKey, r.webSocketKey)
	r.Fields.AddString(Upgrade, "websocket")
	r.upgrade = true
	return nil
}

// provesWebSocket reports whether a 101 answers the key that we have sent, if we have.
func (r *Request) provesWebSocket(answer *Response) bool {
	return r.webSocketKey == nil || string(answer.Fields.Get(SecWebSocketAccept)) == webSocketAccept(r.webSocketKey)
}

// webSocketAccept is what a server of WebSocket makes of a key (RFC 6455 section 4.2.2).
func webSocketAccept(key []byte) string {
	sum := sha1.Sum(slices.Concat(key, []byte("258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))) //nolint:gosec // as above
	return base64.StdEncoding.EncodeToString(sum[:])
}
