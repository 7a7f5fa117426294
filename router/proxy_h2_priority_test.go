package router

import (
	"testing"

	"golang.org/x/net/http2"
)

// Priorities (RFC 9218) do no harm, whatever they say.
func TestH2Priorities(t *testing.T) {
	f := startH2(t, setup{mute: true}, false, startBackend(t, answerAll).addr)
	for name, send := range map[string]func(c *rawH2){
		"on a stream": func(c *rawH2) { c.fr.WriteRawFrame(0x10, 0, 1, []byte("\x00\x00\x00\x01u=1")) },
		"of nothing":  func(c *rawH2) { c.fr.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x00u=1")) },
	} {
		t.Run(name, func(t *testing.T) {
			c := f.rawH2(t)
			send(c)
			c.goAway(http2.ErrCodeProtocol)
		})
	}
	t.Run("too short", func(t *testing.T) {
		c := f.rawH2(t)
		c.fr.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00"))
		c.goAway(http2.ErrCodeFrameSize)
	})
	t.Run("garbage", func(t *testing.T) {
		c := f.rawH2(t)
		for i, priority := range []string{"u=1, i", "u=9", "u=", "u", "u=-1", "u=77", "\"", "i=?0;;,,", "u=1.5"} {
			c.request(uint32(2*i+1), "/", "priority", priority)
			c.fr.WriteRawFrame(0x10, 0, 0, append([]byte{0, 0, 0, byte(2*i + 1)}, priority...))
			if got := c.answerHead(uint32(2*i + 1)); got[":status"] != "200" {
				t.Errorf("%q: %v", priority, got)
			}
		}
	})
}
