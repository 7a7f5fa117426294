// Echo is the backend of the tests: it answers every request with what it saw.
//
// By environment: NAME is told in every answer; PORTS (8080) are the ports it
// listens on, separated by commas, TLS_PORTS those with a certificate it makes
// itself, and UDP_PORTS those where it answers each packet with its own and the
// sender's name; LAMEDUCK (5s) is how long it goes on serving after SIGTERM, as a
// Pod should while the news of its end spreads.
//
// By query: sleep=2s waits before the answer, status=503 is the answer's status,
// bytes=N makes its body N bytes instead of the report, chunked=1 sends it in
// chunks, and header=Name:value adds a header. /ws is a WebSocket that sends
// back what it gets, /sse a stream of events (count=, interval=), and /ready is
// the readiness page, turned by POST /ready?state=false. POST /listen?port=8080&state=false
// has it listen on a port no more, until state is true.
//
// It is a client too, to see the cluster from inside of a Pod: /env is its
// environment, /lookup?type=host&name=web what its resolver says (network=udp or
// tcp), and /fetch?url=http://web/ what another answers it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Getenv, os.Stdout); err != nil {
		log.Fatal("echo: ", err)
	}
}

// run serves until ctx is over and the lame duck's time has passed.
func run(ctx context.Context, getenv func(string) string, stdout io.Writer) error {
	lameDuck, err := time.ParseDuration(or(getenv("LAMEDUCK"), "5s"))
	if err != nil {
		return fmt.Errorf("LAMEDUCK: %w", err)
	}
	name := getenv("NAME")
	pod, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find own name: %w", err)
	}
	servers, failed := []*http.Server(nil), make(chan error, 1)
	listen := func(port string, secure bool) error {
		l, err := newDoor(port)
		if err != nil {
			return err
		}
		s := newServer(&echo{name: name, pod: pod})
		servers = append(servers, s)
		go func() {
			err := serve(s, l, secure)
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		}()
		fmt.Fprintf(stdout, "listening on %s\n", l.Addr())
		return nil
	}
	for _, p := range split(or(getenv("PORTS"), "8080")) {
		if err := listen(p, false); err != nil {
			return err
		}
	}
	for _, p := range split(getenv("TLS_PORTS")) {
		if err := listen(p, true); err != nil {
			return err
		}
	}
	for _, p := range split(getenv("UDP_PORTS")) {
		conn, err := net.ListenPacket("udp", ":"+p)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		go answerPackets(conn, pod)
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	fmt.Fprintf(stdout, "serving for another %s\n", lameDuck)
	select {
	case err := <-failed:
		return err
	case <-time.After(lameDuck):
	}
	return shutdown(servers)
}

// shutdown lets requests in flight finish.
func shutdown(servers []*http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var errs []error
	for _, s := range servers {
		errs = append(errs, s.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
