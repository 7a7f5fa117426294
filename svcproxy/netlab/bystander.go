package netlab

import "errors"

// ErrWrites says that somebody wanted to write who should only have read.
var ErrWrites = errors.New("a transaction, where there should be nothing to change")

// Bystander is a Socket that reads and refuses to write.
type Bystander struct{ Socket }

// Send implements Socket.
func (b Bystander) Send(data []byte) error {
	if isTransaction(data) {
		return ErrWrites
	}
	return b.Socket.Send(data)
}
