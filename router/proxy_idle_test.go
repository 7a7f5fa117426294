package router

import (
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// TestIdleConnectionsHoldNoBuffers measures what a kept connection costs the proxy while
// nothing happens on it. The clients are bare descriptors, so that all the memory is ours.
func TestIdleConnectionsHoldNoBuffers(t *testing.T) {
	const n = 1000
	b := startBackend(t, answerAll)
	f := setup{mute: true}.start(t, b.addr)
	f.dial(t).get("/", 200)
	before := inUse()
	to := f.server
	addr := mustTCPAddr(t, f.addr)
	buf := make([]byte, 4096)
	for range n {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer syscall.Close(fd)
		if err := syscall.Connect(fd, addr); err != nil {
			t.Fatal(err)
		}
		if _, err := syscall.Write(fd, []byte(getIt)); err != nil {
			t.Fatal(err)
		}
		if k, err := syscall.Read(fd, buf); k <= 0 || err != nil {
			t.Fatal(k, err)
		}
	}
	eventually(t, "all are idle", func() bool { return to.Stats().Idle == n+1 })
	each := (inUse() - before) / n
	t.Logf("%d bytes each", each)
	if limit := int64(12 << 10); each > limit {
		t.Errorf("an idle connection holds %d bytes, want at most %d", each, limit)
	}
}

func mustTCPAddr(t *testing.T, addr string) *syscall.SockaddrInet4 {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())}
}

// inUse is heap and stacks, once the pools have been emptied.
func inUse() int64 {
	for range 3 { // a pool forgets what it holds in two rounds
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
