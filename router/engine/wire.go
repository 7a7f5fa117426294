package engine

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// wire is one connection: a socket, perhaps with TLS over it. Its deadlines are coarse:
// one that is armed already and is at most a quarter later than the one asked for is left
// alone, so that a busy connection sets a timer now and then and not several times a
// request.
type wire struct {
	conn net.Conn     // what is read and written
	tcp  *net.TCPConn // the socket beneath, for what only sockets can do; nil for other kinds
	tls  *tls.Conn    // conn, where that is TLS
	raw  syscall.RawConn
	fd   int // the socket's; only for one who knows that nobody closes it meanwhile

	readBy, writeBy time.Time // what is armed

	// The functions that raw calls are made once, and speak through these.
	readInto  *input
	readSize  int
	readErr   error
	asked     []byte // to be written before
	sent      int    // of that
	firstByte [1]byte
	onRead    func(fd uintptr) bool
	pollFor   int16
	pollFound int16
	onPoll    func(fd uintptr)
	onWrite   func(fd uintptr) bool
}

func (w *wire) init(conn net.Conn) {
	w.conn = conn
	under := conn
	if t, ok := conn.(*tls.Conn); ok {
		w.tls = t
		under = t.NetConn()
	}
	if r, ok := under.(*replayConn); ok {
		under = r.Conn
	}
	if s, ok := under.(*socket); ok {
		w.tcp, w.raw = s.TCPConn, s.raw
		w.onRead = w.readSocket
		w.onPoll = w.pollSocket
		w.fd = s.fd
		w.onWrite = writableSocket
	}
}

// splices reports whether the kernel can move bytes to and from this connection by itself.
func (w *wire) splices() bool { return w.tcp != nil && w.tls == nil }

// slack is how much later than asked for a deadline may be.
func slack(d time.Duration) time.Duration { return d/4 + 10*time.Millisecond }

// armRead bounds reads from now on by d.
func (w *wire) armRead(now time.Time, d time.Duration) {
	by := now.Add(d)
	if ahead := w.readBy.Sub(by); ahead >= 0 && ahead <= slack(d) {
		return
	}
	w.readBy = by.Add(slack(d))
	_ = w.conn.SetReadDeadline(w.readBy) // fails only on a closed connection, as the read will
}

// armWrite bounds writes from now on by d.
func (w *wire) armWrite(now time.Time, d time.Duration) {
	by := now.Add(d)
	if ahead := w.writeBy.Sub(by); ahead >= 0 && ahead <= slack(d) {
		return
	}
	w.writeBy = by.Add(slack(d))
	_ = w.conn.SetWriteDeadline(w.writeBy) // as above
}

// letOthers is called before a read of what can hardly be there yet. The runtime tries to
// read before it waits, and a try that finds nothing is a system call for nothing; after the
// others that can run have had their turn there often is something.
func letOthers() { runtime.Gosched() }

// await reads into in, which holds no buffer: one is borrowed only once there is
// something to read. This is where idle connections spend their lives.
func (w *wire) await(in *input) error {
	if w.tls != nil || w.raw == nil {
		return w.awaitByte(in)
	}
	return w.readRaw(in, headBufferSize)
}

// fill reads up to n bytes of a body: all that in holds has been used. While it waits it
// holds no buffer, but for TLS, of which one record comes at a time.
func (w *wire) fill(in *input, n int) error {
	in.used()
	if w.tls == nil && w.raw != nil {
		return w.readRaw(in, n)
	}
	in.buf = getBuffer(min(n, pieceBufferSize))
	k, err := w.conn.Read(in.buf[:min(n, len(in.buf))])
	in.w = k
	switch {
	case k > 0:
		return nil
	case err == nil:
		return io.ErrNoProgress
	}
	return err
}

func (w *wire) readRaw(in *input, n int) error {
	w.readInto, w.readSize, w.readErr = in, n, nil
	err := w.raw.Read(w.onRead)
	w.readInto = nil
	if err == nil {
		err = w.readErr
	}
	return err
}

// ask writes all of a request and then reads as fill does. Where the two are one call nothing that
// comes can have been missed when the wait begins, so that there is no try in vain to read what
// cannot be there yet. Where the write would have to wait it ends after sent bytes, and reads nothing; where
// the time was over before, it has not even tried.
func (w *wire) ask(p []byte, in *input, n int) (sent int, tried bool, err error) {
	in.used()
	w.asked, w.sent = p, 0
	err = w.readRaw(in, n)
	tried, w.asked = w.asked == nil, nil
	return w.sent, tried, err
}

func (w *wire) readSocket(fd uintptr) bool {
	if p := w.asked; p != nil {
		n, err := send(fd, p)
		w.asked, w.sent = nil, n
		if err == 0 || err == unix.EAGAIN { // or else a read tells what has happened
			return n < len(p)
		}
	}
	in := w.readInto
	in.buf = getBuffer(w.readSize)
	n, err := receive(fd, in.buf[:min(w.readSize, len(in.buf))])
	if n > 0 {
		in.r, in.w = 0, n
		return true
	}
	putBuffer(in.buf)
	in.buf = nil
	if err == unix.EAGAIN {
		return false
	}
	w.readErr = endOf(n, err)
	return true
}

// awaitByte waits with a buffer of one byte. The TLS layer may hold decrypted bytes
// already, so that only reading tells whether there are any.
func (w *wire) awaitByte(in *input) error {
	n, err := w.conn.Read(w.firstByte[:])
	if n == 0 {
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	in.buf = getHeadBuffer()
	in.buf[0] = w.firstByte[0]
	in.r, in.w = 0, 1
	return nil
}

// poll asks the kernel, without waiting, which of events hold for the socket.
func (w *wire) poll(events int16) int16 {
	if w.raw == nil {
		return 0
	}
	w.pollFor, w.pollFound = events, 0
	if w.raw.Control(w.onPoll) != nil {
		return unix.POLLERR
	}
	return w.pollFound
}

func (w *wire) pollSocket(fd uintptr) {
	w.pollFound = poll(int(fd), w.pollFor)
}

// writable reports whether the other side takes something now. It does if nobody can say.
func (w *wire) writable() bool { return w.raw == nil || w.poll(unix.POLLOUT) != 0 }

// awaitWritable waits until the other side takes something, or has gone.
func (w *wire) awaitWritable() error {
	if w.raw == nil {
		return nil
	}
	return w.raw.Write(w.onWrite)
}

func writableSocket(fd uintptr) bool {
	return poll(int(fd), unix.POLLOUT) != 0
}

// brokenEvents are those of a connection of which both halves have ended, or that failed.
const brokenEvents int16 = unix.POLLHUP | unix.POLLERR

// quiet reports whether an idle connection is still open, and nothing has come on it.
// Bytes nobody asked for would be taken for the next answer. It is for the one who has the
// connection for itself.
func (w *wire) quiet() bool {
	if w.raw != nil && poll(w.fd, hangUpEvents|unix.POLLIN) != 0 {
		return false
	}
	return w.tls == nil || w.tlsQuiet()
}

// tlsQuiet asks the TLS layer, which may have read more than it has handed out. A read whose
// deadline is past never gets as far as the socket.
func (w *wire) tlsQuiet() bool {
	_ = w.conn.SetReadDeadline(past) // fails only if it has closed
	n, err := w.conn.Read(w.firstByte[:])
	w.readBy = time.Time{}
	return n == 0 && isTimeout(err)
}

// closeWrite ends our half of the connection.
func (w *wire) closeWrite() error {
	if c, ok := w.conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// reset closes the connection so that the other side sees it fail, and cannot take a cut
// message for a whole one. Over TLS it goes without the alert that says all is well.
func (w *wire) reset() {
	if w.tcp == nil {
		_ = w.conn.Close() // nothing can be done about it
		return
	}
	_ = w.tcp.SetLinger(0) // the close that follows happens either way
	_ = w.tcp.Close()      // as above
}
