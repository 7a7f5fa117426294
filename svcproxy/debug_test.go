package svcproxy

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/tools/txtar"
)

func TestDebug(t *testing.T) {
	if os.Getenv("CASE") == "" {
		t.Skip()
	}
	a, _ := txtar.ParseFile("testdata/packets/" + os.Getenv("CASE") + ".txtar")
	w := newWorld(t, false, "")
	for _, f := range a.Files {
		switch f.Name {
		case "services":
			w.putServices(t, w.expand(string(f.Data)))
		case "endpoints":
			w.putEndpoints(t, w.expand(string(f.Data)))
		}
	}
	w.sync(t)
	w.Nodes[0].Do(t, func() {
		out, err := exec.Command("sh", "-c", fmt.Sprintf("PODFD=%d . /tmp/w/lst.sh", w.Pods[0][0].FD())).CombinedOutput()
		t.Log(string(out), err)
	})
}
