package main

import (
	"errors"
	"net"
	"net/http"
	"syscall"
	"testing"
)

func TestDoorShuts(t *testing.T) {
	d, err := newDoor("0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(d.Addr().String())
	s := newServer(&echo{name: "n", pod: "p"})
	done := make(chan error, 1)
	go func() { done <- serve(s, d, false) }()
	control := "http://" + start(t) + "/listen?port=" + port + "&state="
	for _, state := range []string{"true", "false", "false", "true"} {
		res, err := http.Post(control+state, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if open := state == "true"; res.StatusCode != 200 || (err == nil) != open || !open && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("%s: %s, %v", state, res.Status, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
	if err := d.set(false); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
