package router

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/portico-ingress/portico/router/engine"
)

// crowd is how many abusive clients there are room for: each takes two descriptors of the proxy.
// What is on their own side and on the backend's is held by other processes, but for some.
func crowd(t *testing.T, most int) int {
	t.Helper()
	if raceEnabled {
		return min(most, 200) // what is measured is not what it would be
	}
	want := uint64(2*most + crowdRoom)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur < want {
		more := syscall.Rlimit{Cur: want, Max: max(limit.Max, want)} // root may
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) != nil {
			more = syscall.Rlimit{Cur: limit.Max, Max: limit.Max}
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) })
		limit = more
	}
	return min(most, int(limit.Cur-crowdRoom)/2)
}

// parkAt is how many descriptors one process holds for us; crowdRoom is what we need for those on
// their way there, and for ourselves.
const (
	parkAt    = 250
	crowdRoom = 4*parkAt + 200
)

// parking has descriptors held open by other processes.
type parking struct {
	t     *testing.T
	mu    sync.Mutex
	files []*os.File
}

// add takes over f.
func (p *parking) add(f *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.files = append(p.files, f); len(p.files) == parkAt {
		p.leave()
	}
}

func (p *parking) leave() {
	holder := exec.Command("sleep", "600")
	holder.ExtraFiles = p.files
	if err := holder.Start(); err != nil {
		p.t.Error(err)
		return
	}
	p.t.Cleanup(func() {
		holder.Process.Kill()
		holder.Wait()
	})
	p.close()
}

func (p *parking) close() {
	for _, f := range p.files {
		f.Close()
	}
	p.files = nil
}

// narrow is a listener whose connections have next to no room in the kernel, so that a
// test with thousands of them does not need gigabytes there.
type narrow struct{ net.Listener }

func (l narrow) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		conn.(*net.TCPConn).SetWriteBuffer(4 << 10)
	}
	return conn, err
}

// bareClients makes n connections of bare descriptors, so that all the memory is the
// proxy's. Each sends its request and then does nothing, with next to no room for an answer.
func bareClients(t *testing.T, f *front, b *plenty, n int, request func(i int) []byte) {
	t.Helper()
	addr := mustTCPAddr(t, f.addr)
	p := parking{t: t}
	t.Cleanup(p.close)
	for i := range n {
		if i%parkAt == 0 {
			eventually(t, "the backend keeps up", func() bool { return int64(i)-b.fed.Load() < parkAt })
		}
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(i, err)
		}
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1024)
		if err := syscall.Connect(fd, addr); err != nil {
			t.Fatal(i, err)
		}
		if _, err := syscall.Write(fd, request(i)); err != nil {
			t.Fatal(i, err)
		}
		p.add(os.NewFile(uintptr(fd), "client"))
	}
}

// plenty is a backend that has more to send than anybody takes, and holds next to nothing
// while it cannot. Of requests for /fast it answers all.
type plenty struct {
	addr string
	fed  atomic.Int64 // connections that have been sent as much as they take for now
	idle parking      // those
}

func startPlenty(t *testing.T, heads ...string) *plenty {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &plenty{addr: ln.Addr().String(), idle: parking{t: t}}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []net.Conn
	turn := atomic.Int64{}
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, conn)
			mu.Unlock()
			wg.Go(func() { p.serve(conn, heads[int(turn.Add(1))%len(heads)]) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, conn := range all {
			conn.Close()
		}
		mu.Unlock()
		wg.Wait()
		p.idle.close()
	})
	return p
}

// much is more than fits between the backend and a client that reads nothing.
const much = 96 << 10

func (p *plenty) serve(conn net.Conn, head string) {
	buf := make([]byte, 2048)
	for {
		fast, err := readHead(conn, buf)
		if err != nil {
			conn.Close()
			return
		}
		if fast != "" {
			io.WriteString(conn, fast)
			continue
		}
		conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		io.WriteString(conn, head)
		if head != "" {
			conn.Write(bytes.Repeat([]byte("x"), much))
		}
		if f, err := conn.(*net.TCPConn).File(); err == nil {
			p.idle.add(f) // stays open
			conn.Close()
		}
		p.fed.Add(1)
		return
	}
}

// readHead reads to the end of a request's head, and what comes with it, and returns the answer if it is for /fast.
func readHead(conn net.Conn, buf []byte) (fast string, err error) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
	for have := 0; ; {
		n, err := conn.Read(buf[have:])
		switch {
		case err != nil:
			return "", err
		case have == 0 && bytes.HasPrefix(buf, []byte("GET /fast ")):
			fast = head + "ok"
		case have == 0 && bytes.HasPrefix(buf, []byte("HEAD /fast ")):
			fast = head
		}
		have += n
		if bytes.Contains(buf[:have], []byte("\r\n\r\n")) {
			return fast, nil
		}
		have = copy(buf, buf[max(0, have-3):have])
	}
}

// each measures what n clients cost, once nothing moves any more.
func each(t *testing.T, before int64, n int) int64 {
	t.Helper()
	last := inUse()
	eventually(t, "nothing moves", func() bool {
		now := inUse()
		same := max(now-last, last-now) < last/100
		last = now
		if !same {
			time.Sleep(100 * time.Millisecond)
		}
		return same
	})
	return (last - before) / int64(n)
}

// others measures what a client in good order sees meanwhile.
func others(t *testing.T, f *front) {
	t.Helper()
	var took []time.Duration
	for range 20 {
		c := f.dial(t)
		for range 10 {
			start := time.Now()
			if resp, _ := c.send("GET /fast HTTP/1.1\r\nHost: h.test\r\n\r\n").answer("GET"); resp.StatusCode != 200 {
				t.Fatalf("status %d", resp.StatusCode)
			}
			took = append(took, time.Since(start))
		}
		c.Close()
	}
	slices.Sort(took)
	t.Logf("others: median %v, worst %v", took[len(took)/2], took[len(took)-1])
	if worst := took[len(took)-1]; worst > 10*time.Second {
		t.Errorf("another client waited %v", worst)
	}
}

func resident(t *testing.T) int64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int64
	fmt.Sscan(string(raw), &size, &pages)
	return pages * int64(os.Getpagesize())
}

const (
	chunkedHead = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5f5e100\r\n"
	lengthHead  = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
	endlessHead = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
)

func TestManySlowReaders(t *testing.T) {
	tests := []struct {
		name  string
		most  int
		heads []string
		h2    bool
		limit int64 // of memory for each
	}{
		{"HTTP/1.1", 10000, []string{chunkedHead, lengthHead, endlessHead}, false, 52 << 10},
		{"HTTP/2", 10000, []string{chunkedHead, lengthHead, endlessHead}, true, 56 << 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := crowd(t, tt.most)
			b := startPlenty(t, tt.heads...)
			s := setup{mute: true, h2c: true, listen: func(ln net.Listener) net.Listener { return narrow{ln} }}
			f := s.start(t, b.addr)
			f.dial(t).get("/fast", 200)
			before, rss := inUse(), resident(t)
			request := []byte("GET /slow HTTP/1.1\r\nHost: h.test\r\n\r\n")
			if tt.h2 {
				request = stingyH2()
			}
			bareClients(t, f, b, n, func(int) []byte { return request })
			eventually(t, "all are being answered", func() bool { return f.InFlight() == int64(n) && b.fed.Load() == int64(n) })
			cost := each(t, before, n)
			t.Logf("%d slow readers: %d bytes each, %d resident", n, cost, (resident(t)-rss)/int64(n))
			if cost > tt.limit && !raceEnabled {
				t.Errorf("a slow reader holds %d bytes, want at most %d", cost, tt.limit)
			}
			others(t, f)
		})
	}
}

// stingyH2 asks for something, and opens hardly a window for the answer.
func stingyH2() []byte {
	var raw, block bytes.Buffer
	raw.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&raw, nil)
	fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "h.test"}, {":path", "/slow"}} {
		enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true, BlockFragment: block.Bytes()})
	return raw.Bytes()
}

// Bodies that come slowly, and answers that do not come yet.
func TestManyWhoWait(t *testing.T) {
	tests := []struct {
		name, request, heads string
	}{
		{"slow bodies", "POST /slow HTTP/1.1\r\nHost: h.test\r\nContent-Length: 100000\r\n\r\nhello", ""},
		{"long polls", "GET /slow HTTP/1.1\r\nHost: h.test\r\n\r\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := crowd(t, 10000)
			b := startPlenty(t, tt.heads)
			f := setup{mute: true}.start(t, b.addr)
			f.dial(t).get("/fast", 200)
			before := inUse()
			bareClients(t, f, b, n, func(int) []byte { return []byte(tt.request) })
			eventually(t, "all have been forwarded", func() bool { return b.fed.Load() == int64(n) })
			cost := each(t, before, n)
			t.Logf("%d: %d bytes each", n, cost)
			if cost > 40<<10 && !raceEnabled {
				t.Errorf("each holds %d bytes", cost)
			}
			others(t, f)
		})
	}
}

// A body has to come at a rate, however little it is at a time.
func TestABodyThatDripsIsRefused(t *testing.T) {
	s := setup{h2c: true, limits: engine.Limits{MinRate: 1000, MinRateGrace: short}}
	b := startBackend(t, answerAll)
	drip := func(write func([]byte) error, done <-chan struct{}) {
		for write([]byte("x")) == nil {
			select {
			case <-done:
				return
			case <-time.After(short / 20):
			}
		}
	}
	t.Run("HTTP/1.1", func(t *testing.T) {
		t.Parallel()
		c := s.start(t, b.addr).dial(t).send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 100000\r\n\r\n")
		done := make(chan struct{})
		defer close(done)
		go drip(func(p []byte) error { _, err := c.Write(p); return err }, done)
		if resp, _ := c.answer("POST"); resp.StatusCode != 408 || !resp.Close {
			t.Errorf("status %d, close %t", resp.StatusCode, resp.Close)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		c := s.start(t, b.addr).rawH2(t)
		c.head(1, false, ":method", "POST", ":scheme", "http", ":authority", "h.test", ":path", "/")
		done := make(chan struct{})
		defer close(done)
		var mu sync.Mutex
		go drip(func(p []byte) error { mu.Lock(); defer mu.Unlock(); return c.fr.WriteData(1, false, p) }, done)
		fr := http2.NewFramer(nil, c.Conn)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if h, ok := f.(*http2.MetaHeadersFrame); ok {
				if h.PseudoValue("status") != "408" {
					t.Errorf("status %s", h.PseudoValue("status"))
				}
				return
			}
		}
	})
	t.Run("but for gRPC", func(t *testing.T) {
		t.Parallel()
		c := s.start(t, b.addr).dial(t).send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Type: application/grpc+proto\r\nContent-Length: 5\r\n\r\n")
		for _, letter := range []string{"h", "e", "l", "l", "o"} {
			time.Sleep(short)
			c.send(letter)
		}
		if resp, _ := c.answer("POST"); resp.StatusCode != 200 {
			t.Errorf("status %d", resp.StatusCode)
		}
	})
}

// A reader has to take at a rate, however little it is at a time.
func TestAReaderThatDripsIsCut(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[h2], func(t *testing.T) {
			t.Parallel()
			b := startBackend(t, flood)
			s := setup{
				h2c: true, limits: engine.Limits{MinRate: 1 << 20, WriteTimeout: short},
				listen: func(ln net.Listener) net.Listener { return narrow{ln} },
			}
			f := s.start(t, b.addr)
			var sip func() error
			if h2 {
				c := f.rawH2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
				c.request(1, "/")
				go io.Copy(io.Discard, c.Conn)
				sip = func() error { return c.fr.WriteWindowUpdate(1, 300) }
			} else {
				c := f.dial(t)
				c.Conn.(*net.TCPConn).SetReadBuffer(1024)
				c.send(getIt)
				sip = func() error { _, err := io.CopyN(io.Discard, c.Conn, 2000); return err }
			}
			for deadline := time.Now().Add(patience); sip() == nil; time.Sleep(short / 10) {
				if time.Now().After(deadline) {
					t.Fatal("it lives for ever")
				}
				if f.log.has(1) {
					break
				}
			}
			if e := f.log.await(t, 1)[0]; e.Status != 200 || !strings.Contains(e.Note, "timeout") {
				t.Errorf("in the log: %+v", e)
			}
		})
	}
}

// One who reads slowly but at the rate gets all of it, even if its socket is not found
// writable, which takes a third of what the kernel holds, within a time-out.
func TestAReaderThatIsMerelySlowGetsAll(t *testing.T) {
	const size = 6 << 20
	heads := []string{fmt.Sprintf("Content-Length: %d\r\n\r\n", size), fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n", size)}
	for i, head := range append(heads, heads...) {
		b := startBackend(t, func(c *upstreamConn) {
			c.request()
			c.send("HTTP/1.1 200 OK\r\n" + head)
			c.send(strings.Repeat("x", size))
			if strings.HasPrefix(head, "T") {
				c.send("\r\n0\r\n\r\n")
			}
			c.gone()
		})
		s := setup{limits: engine.Limits{MinRate: 1000, WriteTimeout: 3 * short / 2}}
		if i >= len(heads) {
			s.route = func(r *Route) { r.BufferAnswer = 64 << 10 }
		}
		steadily(t, short/4, func(t testing.TB) {
			t.Helper()
			c := s.start(t, b.addr).dial(t)
			c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
			resp := c.send(getIt).head("GET")
			n := int64(0)
			for {
				k, err := io.CopyN(io.Discard, resp.Body, 200<<10)
				n += k
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("after %d bytes: %v", n, err)
				}
				time.Sleep(short / 2)
			}
			if n != size {
				t.Errorf("%d bytes of %d", n, size)
			}
		})
	}
}
