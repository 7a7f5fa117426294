package engine

import (
	"io"
	"net"
	"syscall"
)

// socket is a TCP connection that is read and written without a word to the scheduler. Its
// system calls never wait, so that there is nothing to prepare for; and where a program often
// runs out of work for a moment, as a proxy does, each announced one wakes the runtime's
// monitor thread, which then looks at what there is to see every 20 us (see the README).
//
// One goroutine at a time may read and one may write.
type socket struct {
	*net.TCPConn
	raw syscall.RawConn
	fd  int

	// The functions that raw calls are made once, and speak through these.
	readInto  []byte
	readErr   error
	onRead    func(fd uintptr) bool
	writeFrom []byte
	writeErr  error
	onWrite   func(fd uintptr) bool
}

// asSocket returns conn as a socket, if that is what it is, or as it was.
func asSocket(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	s := &socket{TCPConn: tcp, raw: raw}
	_ = raw.Control(func(fd uintptr) { s.fd = int(fd) }) // whatever comes next finds a closed one to be so
	s.onRead, s.onWrite = s.receive, s.send
	return s
}

// Read is that of a net.Conn.
func (s *socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.readInto, s.readErr = p, nil
	err := s.raw.Read(s.onRead)
	n := len(p) - len(s.readInto)
	s.readInto = nil
	if err == nil {
		err = s.readErr
	}
	return n, err
}

func (s *socket) receive(fd uintptr) bool {
	n, err := receive(fd, s.readInto)
	if err == syscall.EAGAIN {
		return false
	}
	s.readInto, s.readErr = s.readInto[n:], endOf(n, err)
	return true
}

// endOf is the error of a read that got n bytes of at least one.
func endOf(n int, errno syscall.Errno) error {
	switch {
	case errno != 0:
		return errno
	case n == 0:
		return io.EOF
	}
	return nil
}

// Write is that of a net.Conn.
func (s *socket) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.writeFrom, s.writeErr = p, nil
	err := s.raw.Write(s.onWrite)
	n := len(p) - len(s.writeFrom)
	s.writeFrom = nil
	if err == nil {
		err = s.writeErr
	}
	return n, err
}

func (s *socket) send(fd uintptr) bool {
	for {
		n, err := send(fd, s.writeFrom)
		switch {
		case err == syscall.EAGAIN:
			return false
		case err != 0:
			s.writeErr = err
			return true
		}
		if s.writeFrom = s.writeFrom[n:]; len(s.writeFrom) == 0 {
			return true
		}
	}
}
