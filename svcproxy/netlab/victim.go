package netlab

import (
	"os"

	"golang.org/x/sys/unix"
)

// Victim is a Socket whose process is killed by SIGKILL at one step: a step is to be about to send a
// transaction, and another one to have sent it. What is only read leaves the kernel as it was.
type Victim struct {
	Socket
	// Left are the steps that it lives to see.
	Left int
}

// Send implements Socket.
func (v *Victim) Send(data []byte) error {
	if !isTransaction(data) {
		return v.Socket.Send(data)
	}
	v.step()
	err := v.Socket.Send(data)
	v.step()
	return err
}

func (v *Victim) step() {
	if v.Left--; v.Left >= 0 {
		return
	}
	if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
		panic(err)
	}
	select {} // until it arrives
}
