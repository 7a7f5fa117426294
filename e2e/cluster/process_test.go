package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startChild starts a shell that is not collected until the test is over, as
// if its parent did not care.
func startChild(t *testing.T, script string) processID {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err) // it says when it is set up
	}
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestEndIsPoliteAndThenNot(t *testing.T) {
	for name, script := range map[string]string{
		"polite":   "echo; exec sleep 100",
		"stubborn": "trap '' TERM; echo; while :; do sleep 1; done",
	} {
		t.Run(name, func(t *testing.T) {
			id := startChild(t, script)
			if !id.alive() {
				t.Fatal("not alive after its start")
			}
			if err := id.end(t.Context(), 200*time.Millisecond); err != nil || id.alive() {
				t.Errorf("ended with %v, alive %t", err, id.alive())
			}
		})
	}
}

// A number that now belongs to another process must not be taken for ours.
func TestAliveKnowsAnotherProcess(t *testing.T) {
	id, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !id.alive() {
		t.Error("we are not alive")
	}
	id.start += "0"
	if id.alive() {
		t.Error("a process that started at another time is taken for ours")
	}
}

func TestReadPIDFileRefusesNonsense(t *testing.T) {
	for _, content := range []string{"", "x", "0 1", "1 1", "-4 1"} {
		file := filepath.Join(t.TempDir(), "pid")
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if id, err := readPIDFile(file); err == nil {
			t.Errorf("%q is read as %+v", content, id)
		}
	}
}

func TestPollTellsTheLastError(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	err := poll(ctx, time.Millisecond, func(context.Context) error { return os.ErrPermission })
	if err == nil || !strings.Contains(err.Error(), "permission") || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("got %v", err)
	}
}
