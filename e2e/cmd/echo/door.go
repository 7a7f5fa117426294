package main

import (
	"errors"
	"net"
	"net/http"
	"sync"
)

// door is a listener that can be shut, as if the program had died, while it goes on at its other ports.
type door struct {
	address string

	mu     sync.Mutex
	inner  net.Listener  // nil while it is shut
	turned chan struct{} // closed when it is opened, or ends
	ended  bool
}

// doors are all that this process has, by port.
var doors sync.Map

func newDoor(port string) (*door, error) {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return nil, err
	}
	d := &door{address: l.Addr().String(), inner: l}
	_, at, _ := net.SplitHostPort(d.address)
	doors.Store(at, d)
	return d, nil
}

// Accept waits while the door is shut.
func (d *door) Accept() (net.Conn, error) {
	for {
		d.mu.Lock()
		l, turned, ended := d.inner, d.turned, d.ended
		d.mu.Unlock()
		switch {
		case ended:
			return nil, net.ErrClosed
		case l == nil:
			<-turned
			continue
		}
		c, err := l.Accept()
		if !errors.Is(err, net.ErrClosed) {
			return c, err
		}
	}
}

// set opens or shuts it.
func (d *door) set(open bool) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.ended || open == (d.inner != nil):
		return nil
	case !open:
		err = d.inner.Close()
		d.inner, d.turned = nil, make(chan struct{})
		return err
	}
	if d.inner, err = net.Listen("tcp", d.address); err == nil {
		close(d.turned)
	} else {
		d.inner = nil
	}
	return err
}

// Close ends it.
func (d *door) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	if d.inner == nil {
		close(d.turned)
		return nil
	}
	return d.inner.Close()
}

// Addr is where it listens, or would.
func (d *door) Addr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", d.address)
	return a
}

// turn is POST /listen?port=8080&state=false: nobody listens there any more, until state is true.
func turn(w http.ResponseWriter, r *http.Request) {
	d, ok := doors.Load(r.FormValue("port"))
	if !ok || r.Method != http.MethodPost {
		http.Error(w, "POST a port that this listens on, and a state", http.StatusBadRequest)
		return
	}
	if err := d.(*door).set(r.FormValue("state") != "false"); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
