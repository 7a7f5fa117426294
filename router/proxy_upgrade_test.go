package router

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/portico-ingress/portico/router/engine"
)

const upgrading = "GET /chat HTTP/1.1\r\nHost: h.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"

// echoTunnel accepts the upgrade and says the same thing back, until the other half ends.
func echoTunnel(c *upstreamConn) {
	r, err := http.ReadRequest(c.r)
	if err != nil {
		return
	}
	if r.Header.Get("Upgrade") != "websocket" || !strings.EqualFold(r.Header.Get("Connection"), "upgrade") {
		c.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		return
	}
	c.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: y\r\n\r\nhello ")
	io.Copy(c.Conn, c.r)
	c.send("bye")
	c.Conn.(*net.TCPConn).CloseWrite()
}

func TestUpgrade(t *testing.T) {
	for name, encrypted := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := startBackend(t, echoTunnel)
			f := setup{}.withTLS(encrypted).start(t, b.addr).trusting(encrypted)
			c := f.dial(t)
			c.send(upgrading + "early ")
			resp := c.head("GET")
			if resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "WebSocket" || resp.Header.Get("Connection") != "upgrade" {
				t.Fatalf("%+v", resp)
			}
			want := "hello early "
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
				t.Fatalf("%q, %v", got, err)
			}
			big := strings.Repeat("0123456789abcdef", 1<<16)
			go c.Write([]byte(big))
			got = make([]byte, len(big))
			if _, err := io.ReadFull(c.r, got); err != nil || string(got) != big {
				t.Fatalf("a megabyte did not come back: %v", err)
			}
			if n := f.server.Stats().Tunnels; n != 1 {
				t.Errorf("%d tunnels", n)
			}
			c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			rest, err := io.ReadAll(c.r) // the other half is open still
			if string(rest) != "bye" || err != nil {
				t.Errorf("after our half had ended: %q, %v", rest, err)
			}
			e := f.log.await(t, 1)[0]
			if e.Status != 101 || e.Note != "" || e.Received != int64(len(big)+len("early ")) {
				t.Errorf("in the log: %+v", e)
			}
		})
	}
}

func TestUpgradeThatIsDeclined(t *testing.T) {
	b := startBackend(t, func(c *upstreamConn) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")
		}
	})
	c := startFront(t, b.addr).dial(t)
	for range 2 { // and the connection is one for requests still
		if resp, body := c.send(upgrading).answer("GET"); resp.StatusCode != 426 || body != "no" {
			t.Errorf("status %d, body %q", resp.StatusCode, body)
		}
	}
}

func TestA101MustBeForWhatWasAsked(t *testing.T) {
	for name, field := range map[string]string{
		"another protocol": "Upgrade: h2c\r\n", "none": "", "one more in a list": "Upgrade: websocket, h2c\r\n",
		"one more in another field": "Upgrade: websocket\r\nUpgrade: h2c\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := startBackend(t, func(c *upstreamConn) {
				c.request()
				c.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n" + field + "\r\n")
				c.gone()
			})
			if resp, _ := startFront(t, b.addr).talk(t, upgrading); resp.StatusCode != 502 {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
}

func TestATunnelEndsOnBothSides(t *testing.T) {
	t.Run("when the backend goes", func(t *testing.T) {
		t.Parallel()
		b := startBackend(t, func(c *upstreamConn) {
			c.request()
			c.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
			c.reset()
		})
		c := startFront(t, b.addr).dial(t).send(upgrading)
		c.head("GET")
		c.closed()
	})
	t.Run("when the client goes", func(t *testing.T) {
		t.Parallel()
		gone := make(chan struct{})
		b := startBackend(t, func(c *upstreamConn) {
			c.request()
			c.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
			c.gone()
			close(gone)
		})
		c := startFront(t, b.addr).dial(t).send(upgrading)
		c.head("GET")
		c.Conn.(*net.TCPConn).SetLinger(0)
		c.Close()
		<-gone
	})
	t.Run("when nothing moves for long", func(t *testing.T) {
		t.Parallel()
		steadily(t, short/2, func(t testing.TB) {
			t.Helper()
			b := startBackend(t, func(c *upstreamConn) {
				c.request()
				c.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
				for range 4 { // one direction is enough to keep it
					time.Sleep(short)
					c.send("x")
				}
				c.gone()
			})
			c := setup{limits: engine.Limits{TunnelTimeout: 2 * short}}.start(t, b.addr).dial(t).send(upgrading)
			c.head("GET")
			if got, _ := io.ReadAll(c.r); string(got) != "xxxx" {
				t.Errorf("%q", got)
			}
		})
	})
}
