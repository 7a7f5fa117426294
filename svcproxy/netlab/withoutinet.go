package netlab

import "golang.org/x/sys/unix"

// WithoutInet is a kernel whose nf_tables has no tables of family inet, and so no IPv6.
type WithoutInet struct {
	Socket
	refused []byte
}

// Send implements Socket.
func (w *WithoutInet) Send(b []byte) error {
	if !isTransaction(b) || b[native.Uint32(b):][unix.NLMSG_HDRLEN] != unix.NFPROTO_INET {
		return w.Socket.Send(b)
	}
	w.refused = refusal(b, unix.EOPNOTSUPP)
	return nil
}

// Receive implements Socket.
func (w *WithoutInet) Receive(b []byte) (int, error) {
	if n := copy(b, w.refused); n > 0 {
		w.refused = nil
		return n, nil
	}
	return w.Socket.Receive(b)
}
