package manifests

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// A server that does not answer the first packet, as a Service that the node does not know yet, is
// given up long before the caller's time is over.
func TestSilentServerIsGivenUp(t *testing.T) {
	t.Parallel()
	cluster, err := NewClusterConfig(&rest.Config{Host: "http://" + silent(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
	defer cancel()
	_, err = cluster.Client.CoreV1().Services("").List(ctx, metav1.ListOptions{})
	if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "i/o timeout") {
		t.Errorf("%v, %v; want a time-out of the connection", err, ctx.Err())
	}
}

// silent is an address that takes no connection: the kernel drops first packets while nobody
// accepts what it has taken already.
func silent(t *testing.T) (address string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "silent")
	t.Cleanup(func() { _ = f.Close() })
	err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0))
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*unix.SockaddrInet4).Port}
	for range 10 {
		c, err := net.DialTimeout("tcp", at.String(), 500*time.Millisecond)
		if err != nil {
			return at.String()
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Fatal("it takes connections")
	return ""
}
