package router

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/portico-ingress/portico/router/engine"
)

// bytesCodec sends *[]byte as it is.
type bytesCodec struct{}

func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func (bytesCodec) Name() string { return "bytes" }

// grpcUpstream is a server of grpc-go whose method is the handler, of all four kinds.
type grpcUpstream struct {
	addr   string
	server *grpc.Server
}

func startGRPC(t testing.TB, secure bool, handler grpc.StreamHandler, options ...grpc.ServerOption) *grpcUpstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if secure {
		options = append(options, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{testCertificate()}})))
	}
	options = append(options, grpc.ForceServerCodecV2(bytesCodec{}), grpc.UnknownServiceHandler(handler))
	u := &grpcUpstream{addr: ln.Addr().String(), server: grpc.NewServer(options...)}
	done := make(chan error, 1)
	go func() { done <- u.server.Serve(ln) }()
	t.Cleanup(func() {
		u.server.Stop()
		<-done
	})
	return u
}

// grpcClient is a client of grpc-go that speaks to the proxy.
func (f *front) grpcClient(t testing.TB) *grpc.ClientConn {
	t.Helper()
	creds := insecure.NewCredentials()
	if f.tls != nil {
		creds = credentials.NewTLS(f.tls.Clone())
	}
	conn, err := grpc.NewClient("passthrough:///"+f.addr, grpc.WithTransportCredentials(creds), grpc.WithAuthority("h.test"),
		grpc.WithDisableRetry(), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{}), grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func unary(ctx context.Context, c *grpc.ClientConn, method, message string, options ...grpc.CallOption) (string, error) {
	in, out := []byte(message), []byte(nil)
	err := c.Invoke(ctx, method, &in, &out, options...)
	return string(out), err
}

var bidi = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}

// echoCalls answers by method: /t.T/Echo sends every message back, /t.T/Count how many there
// were, /t.T/Many a message a hundred times, /t.T/Fail a status without a message,
// /t.T/FailLate one after a message, /t.T/Wait waits for the end of its context.
func echoCalls(ended chan<- error) grpc.StreamHandler {
	return func(_ any, s grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(s)
		if method == "/t.T/Nothing" { // not even a header of its own: the answer is one frame
			var m []byte
			if err := s.RecvMsg(&m); !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		}
		md, _ := metadata.FromIncomingContext(s.Context())
		s.SetHeader(metadata.Pairs("x-seen", strings.Join(md.Get("x-ask"), ",")))
		s.SetTrailer(metadata.Pairs("x-end", "yes"))
		if method == "/t.T/Fail" {
			return status.Error(codes.FailedPrecondition, "not now: ü")
		}
		for n := 0; ; n++ {
			var m []byte
			err := s.RecvMsg(&m)
			if errors.Is(err, io.EOF) {
				if method == "/t.T/Count" {
					m = fmt.Append(nil, n)
					return s.SendMsg(&m)
				}
				return nil
			}
			if err != nil {
				return err
			}
			switch method {
			case "/t.T/Echo":
				err = s.SendMsg(&m)
			case "/t.T/Many":
				for range 100 {
					err = errors.Join(err, s.SendMsg(&m))
				}
			case "/t.T/FailLate":
				s.SendMsg(&m)
				return status.Error(codes.DataLoss, "lost")
			case "/t.T/Wait":
				s.SendMsg(&m)
				<-s.Context().Done()
				ended <- s.Context().Err()
				return s.Context().Err()
			}
			if err != nil {
				return err
			}
		}
	}
}

// overGRPC runs a test over the four ways through the proxy.
func overGRPC(t *testing.T, run func(t *testing.T, f *front, up *grpcUpstream, ended chan error)) {
	t.Helper()
	for _, down := range []bool{false, true} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("TLS %t to TLS %t", down, secure), func(t *testing.T) {
				ended := make(chan error, 100)
				up := startGRPC(t, secure, echoCalls(ended), grpc.MaxRecvMsgSize(64<<20))
				f := startH2(t, setup{}.toH2(secure), down, up.addr)
				run(t, f, up, ended)
				if t.Failed() {
					for _, e := range f.log.await(t, 0) {
						t.Logf("%s %d %s", e.Path, e.Status, e.Note)
					}
				}
			})
		}
	}
}

func TestGRPC(t *testing.T) {
	overGRPC(t, func(t *testing.T, f *front, _ *grpcUpstream, ended chan error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		c := f.grpcClient(t)
		t.Run("unary", func(t *testing.T) {
			var head, end metadata.MD
			out, err := unary(metadata.AppendToOutgoingContext(ctx, "x-ask", "this"), c, "/t.T/Echo", "hello", grpc.Header(&head), grpc.Trailer(&end))
			if out != "hello" || err != nil || fmt.Sprint(head["x-seen"], end["x-end"]) != "[this] [yes]" {
				t.Errorf("%q %v, %v, %v", out, err, head, end)
			}
		})
		t.Run("empty messages", func(t *testing.T) {
			if out, err := unary(ctx, c, "/t.T/Echo", ""); out != "" || err != nil {
				t.Errorf("%q %v", out, err)
			}
		})
		t.Run("server streaming", func(t *testing.T) { serverStreaming(ctx, t, c) })
		t.Run("client streaming", func(t *testing.T) { clientStreaming(ctx, t, c) })
		t.Run("bidirectional", func(t *testing.T) { bidirectional(ctx, t, c) })
		t.Run("no message at all", func(t *testing.T) { emptyStream(ctx, t, c) })
		t.Run("trailers only", func(t *testing.T) {
			_, err := unary(ctx, c, "/t.T/Fail", "x")
			if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "not now: ü" {
				t.Error(err)
			}
		})
		t.Run("status after a message", func(t *testing.T) {
			_, err := unary(ctx, c, "/t.T/FailLate", "x")
			if s := status.Convert(err); s.Code() != codes.DataLoss || s.Message() != "lost" {
				t.Error(err)
			}
		})
		t.Run("large messages", func(t *testing.T) {
			big := strings.Repeat("0123456789abcdef", 1<<20)
			if out, err := unary(ctx, c, "/t.T/Echo", big); out != big || err != nil {
				t.Errorf("%d bytes, %v", len(out), err)
			}
		})
		t.Run("deadline", func(t *testing.T) {
			for patience, begun := 50*time.Millisecond, false; !begun && ctx.Err() == nil; patience *= 2 {
				begun = callThatWaits(ctx, t, c, patience)
			}
			<-ended
		})
	})
}

// callThatWaits makes a call that its deadline ends, and reports whether it came to the server
// before that.
func callThatWaits(ctx context.Context, t *testing.T, c *grpc.ClientConn, patience time.Duration) (begun bool) {
	t.Helper()
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	s, err := c.NewStream(ctx, bidi, "/t.T/Wait")
	m := []byte("x")
	if err == nil {
		s.SendMsg(&m)
		if err = s.RecvMsg(&m); err == nil {
			begun, err = true, s.RecvMsg(&m)
		}
	}
	if status.Code(err) != codes.DeadlineExceeded {
		t.Fatal(err)
	}
	return begun
}

func serverStreaming(ctx context.Context, t *testing.T, c *grpc.ClientConn) {
	t.Helper()
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/t.T/Many")
	if err != nil {
		t.Fatal(err)
	}
	m := bytes.Repeat([]byte("z"), 10_000)
	s.SendMsg(&m)
	s.CloseSend()
	for n := 0; ; n++ {
		var got []byte
		if err := s.RecvMsg(&got); errors.Is(err, io.EOF) {
			if n != 100 {
				t.Errorf("%d messages", n)
			}
			return
		} else if err != nil || !bytes.Equal(got, m) {
			t.Fatalf("message %d: %d bytes, %v", n, len(got), err)
		}
	}
}

func clientStreaming(ctx context.Context, t *testing.T, c *grpc.ClientConn) {
	t.Helper()
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/t.T/Count")
	if err != nil {
		t.Fatal(err)
	}
	m := []byte("z") // DATA of 6 bytes, a lot of it
	for range 20_000 {
		if err := s.SendMsg(&m); err != nil {
			t.Fatal(err)
		}
	}
	s.CloseSend()
	var got []byte
	if err := s.RecvMsg(&got); err != nil || string(got) != "20000" {
		t.Errorf("%q %v", got, err)
	}
}

func bidirectional(ctx context.Context, t *testing.T, c *grpc.ClientConn) {
	t.Helper()
	s, err := c.NewStream(ctx, bidi, "/t.T/Echo")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		m, got := fmt.Appendf(nil, "message %d", i), []byte(nil)
		if err := errors.Join(s.SendMsg(&m), s.RecvMsg(&got)); err != nil || !bytes.Equal(got, m) {
			t.Fatalf("%d: %q %v", i, got, err)
		}
	}
	s.CloseSend()
	var got []byte
	if err := s.RecvMsg(&got); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// emptyStream ends its half before it has said anything, in a DATA frame of its own.
func emptyStream(ctx context.Context, t *testing.T, c *grpc.ClientConn) {
	t.Helper()
	for range 50 {
		s, err := c.NewStream(ctx, bidi, "/t.T/Nothing")
		if err != nil {
			t.Fatal(err)
		}
		s.CloseSend()
		var got []byte
		if err := s.RecvMsg(&got); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
}

// A client that gives up ends the call at the upstream at once, not when it is next looked at.
func TestGRPCCancelIsPrompt(t *testing.T) {
	overGRPC(t, func(t *testing.T, f *front, _ *grpcUpstream, ended chan error) {
		t.Helper()
		c := f.grpcClient(t)
		took := time.Hour
		for range 5 {
			ctx, cancel := context.WithCancel(t.Context())
			s, err := c.NewStream(ctx, bidi, "/t.T/Wait")
			if err != nil {
				t.Fatal(err)
			}
			m := []byte("x")
			if err := errors.Join(s.SendMsg(&m), s.RecvMsg(&m)); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			cancel()
			<-ended
			took = min(took, time.Since(start))
		}
		if took > 500*time.Millisecond {
			t.Errorf("after %v", took)
		}
	})
}

func TestGRPCThousandStreams(t *testing.T) {
	up := startGRPC(t, false, echoCalls(nil), grpc.MaxConcurrentStreams(100))
	f := startH2(t, setup{mute: true}.toH2(false), false, up.addr)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	var ready, wg sync.WaitGroup
	ready.Add(1000)
	for range 10 {
		c := f.grpcClient(t)
		for i := range 100 {
			wg.Go(func() {
				s, err := c.NewStream(ctx, bidi, "/t.T/Echo")
				m, got := fmt.Append(nil, i), []byte(nil)
				if err == nil {
					err = errors.Join(s.SendMsg(&m), s.RecvMsg(&got))
				}
				ready.Done()
				ready.Wait() // all of them are open now
				if err == nil {
					err = errors.Join(s.SendMsg(&m), s.RecvMsg(&got))
				}
				if err != nil || !bytes.Equal(got, m) {
					t.Errorf("%d: %q %v", i, got, err)
					return
				}
				s.CloseSend()
				if err := s.RecvMsg(&got); !errors.Is(err, io.EOF) {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if n := f.backend.Endpoints()[0].Pool().Open(); n < 10 || n > 20 {
		t.Errorf("%d connections for 1000 streams of 100 each", n)
	}
}

// A server that stops with grace loses no call: those that it has not seen go to another.
func TestGRPCGracefulStop(t *testing.T) {
	var calls atomic.Int64
	count := func(_ any, s grpc.ServerStream) error {
		calls.Add(1)
		var m []byte
		if err := s.RecvMsg(&m); err != nil {
			return err
		}
		return s.SendMsg(&m)
	}
	a, b := startGRPC(t, false, count), startGRPC(t, false, count)
	f := startH2(t, setup{mute: true}.toH2(false), false, a.addr, b.addr)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 8 {
		c := f.grpcClient(t)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if out, err := unary(ctx, c, "/t.T/Any", "hello"); out != "hello" || err != nil {
					t.Errorf("%q %v", out, err)
					return
				}
			}
		})
	}
	seen := func(n int64) func() bool { return func() bool { return calls.Load() >= n } }
	eventually(t, "calls are made", seen(300))
	a.server.GracefulStop()
	eventually(t, "and go on", seen(calls.Load()+300))
	close(stop)
	wg.Wait()
}

func TestGRPCUpstreamDies(t *testing.T) {
	overGRPC(t, func(t *testing.T, f *front, up *grpcUpstream, ended chan error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		s, err := f.grpcClient(t).NewStream(ctx, bidi, "/t.T/Wait")
		if err != nil {
			t.Fatal(err)
		}
		m := []byte("x")
		if err := errors.Join(s.SendMsg(&m), s.RecvMsg(&m)); err != nil {
			t.Fatal(err)
		}
		up.server.Stop()
		<-ended
		if err := s.RecvMsg(&m); status.Code(err) != codes.Unavailable {
			t.Errorf("in a call: %v", err)
		}
		if _, err := unary(ctx, f.grpcClient(t), "/t.T/Echo", "x"); status.Code(err) != codes.Unavailable {
			t.Errorf("a new call: %v", err)
		}
	})
}

func TestGRPCStatusesOfTheProxy(t *testing.T) {
	silent := startBackend(t, func(c *upstreamConn) { c.gone() })
	for _, c := range []struct {
		name string
		s    setup
		up   []string
		http int
		want codes.Code
	}{
		{name: "no endpoint", http: 503, want: codes.Unavailable},
		{name: "no connection", up: []string{refusing(t)}, http: 502, want: codes.Unavailable},
		{
			name: "no answer", up: []string{silent.addr}, http: 504, want: codes.DeadlineExceeded,
			s: setup{pool: engine.PoolConfig{ConnectTimeout: 50 * time.Millisecond}},
		},
		{name: "no route", http: 404, want: codes.Unimplemented, s: setup{route: func(r *Route) { r.Backend = nil }}},
		{name: "forbidden", http: 403, want: codes.PermissionDenied, s: setup{route: func(r *Route) { r.Backend, r.Status = nil, 403 }}},
		{name: "no credentials", http: 401, want: codes.Unauthenticated, s: setup{route: func(r *Route) { r.Backend, r.Status = nil, 401 }}},
		{name: "bad request", http: 400, want: codes.Internal, s: setup{route: func(r *Route) { r.Backend, r.Status = nil, 400 }}},
		{name: "too late", http: 408, want: codes.DeadlineExceeded, s: setup{route: func(r *Route) { r.Backend, r.Status = nil, 408 }}},
		{name: "too many", http: 429, want: codes.Unavailable, s: setup{route: func(r *Route) { r.Backend, r.Status = nil, 429 }}},
		{
			name: "message too large", up: []string{silent.addr}, http: 413, want: codes.ResourceExhausted,
			s: setup{route: func(r *Route) { r.MaxBody, r.BufferBody = 3, 1<<10 }},
		},
		{name: "head too large", http: 431, want: codes.ResourceExhausted, s: setup{limits: engine.Limits{MaxFields: 6}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startH2(t, c.s.toH2(false), true, c.up...)
			_, err := unary(t.Context(), f.grpcClient(t), "/t.T/Echo", "x")
			if status.Code(err) != c.want {
				t.Errorf("%v", err)
			}
			if e := f.log.await(t, 1)[0]; e.Status != c.http {
				t.Errorf("logged as %d", e.Status)
			}
		})
	}
}

// What is not gRPC but looks like it passes as it is: gRPC-web has its trailers in its body.
func TestGRPCWebPasses(t *testing.T) {
	message := "\x00\x00\x00\x00\x05hello\x80\x00\x00\x00\x0fgrpc-status:0\r\n"
	overUpstreams(t, func(t *testing.T, c *http.Client, f *front) {
		t.Helper()
		req, _ := http.NewRequest("POST", f.url("/t.T/Echo"), strings.NewReader(message))
		req.Header.Set("Content-Type", "application/grpc-web+proto")
		req.Header.Set("X-Grpc-Web", "1")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if string(body) != message || err != nil || resp.Header.Get("Content-Type") != "application/grpc-web+proto" || resp.Header.Get("X-Seen") != "1" {
			t.Errorf("%q %v %v", body, err, resp.Header)
		}
	}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		w.Header().Set("X-Seen", r.Header.Get("X-Grpc-Web"))
		io.Copy(w, r.Body)
	})
}
