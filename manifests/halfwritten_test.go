package manifests

import (
	"io/fs"
	"os"
	"testing"
	"time"

	"go.uber.org/zap"
)

func TestFiles_EmptiedFileKeepsItsLastGoodContent(t *testing.T) {
	f := newFolder(t)
	f.write("empty.yaml", "")
	f.write("a.yaml", service("a"))
	f.run()
	f.services("a") // an empty file is no trouble at first
	for _, text := range []string{"", "# a comment\n", "---\n---\n# nothing\n---\nnull\n"} {
		f.write("a.yaml", text)
		c := f.services("a", "a.yaml")
		equal(t, "problem", c.Problems[0].String(),
			"File a.yaml: holds no object now; what it held before stays live; delete the file to remove it")
		f.do(os.WriteFile(f.path("a.yaml"), []byte(text+"\n"), 0o644)) // again, in place
		f.write("b.yaml", service("b"))
		f.services("a b", "a.yaml")
		f.do(os.Remove(f.path("b.yaml")))
		f.services("a", "a.yaml")
		f.write("a.yaml", service("a"))
		f.services("a")
	}
	f.write("a.yaml", "kind: [\n")
	f.services("a", "a.yaml")
	f.write("a.yaml", "")
	f.services("a", "a.yaml") // broken, then empty
	f.do(os.Remove(f.path("a.yaml")))
	f.services("")
	f.write("a.yaml", "")
	f.write("b.yaml", service("b"))
	f.services("b") // it held nothing
	f.write("b.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n")
	f.services("") // something that Portico does not read is not nothing
	f.write("b.yaml", service("b"))
	f.services("b")
	f.write("b.yaml", "apiVersion: v1\nkind: List\nitems: []\n")
	f.services("") // this one says so
}

// rewrite writes a file in place as slowly as a busy machine does: what it holds is nothing, then
// a half, then all. It returns how long it was not whole.
func (f *folder) rewrite(name, first, second string, pause time.Duration) time.Duration {
	f.t.Helper()
	start := time.Now()
	w, err := os.OpenFile(f.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	f.do(err)
	for _, part := range []string{first, second} {
		time.Sleep(pause)
		_, err := w.WriteString(part)
		f.do(err)
	}
	f.do(w.Close())
	return time.Since(start)
}

// TestFiles_RewrittenAllTheTime has a file that is often half written when it is looked at.
func TestFiles_RewrittenAllTheTime(t *testing.T) {
	for _, c := range []struct {
		name          string
		period, pause time.Duration
	}{
		{"37ms", 37 * time.Millisecond, 9 * time.Millisecond},
		{"100ms", 100 * time.Millisecond, 12 * time.Millisecond},
		{"100ms slowly", 100 * time.Millisecond, 40 * time.Millisecond},
		{"137ms at once", 137 * time.Millisecond, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for try := range 10 {
				slowest, gone := rewrittenAllTheTime(t, c.period, c.pause)
				if gone == "" {
					return
				}
				if slowest < defaultHoldOff/2 || try == 9 {
					t.Fatalf("%s was gone for a moment, though a write took %s at most", gone, slowest)
				}
				t.Logf("again, for a write took %s: it was quiet with half of the file", slowest)
			}
		})
	}
}

// rewrittenAllTheTime says how long the slowest write took, and which Service was gone meanwhile.
func rewrittenAllTheTime(t *testing.T, period, pause time.Duration) (slowest time.Duration, gone string) {
	t.Helper()
	f := newFolder(t)
	f.config.HoldOff = 0
	f.write("a.yaml", service("a")+"---\n"+service("b"))
	f.write("other.yaml", service("other"))
	f.run()
	f.services("a b other")

	stop := f.watch("a", "b")
	next := time.NewTicker(period)
	defer next.Stop()
	f.write("other.yaml", service("another"))
	waits := func() bool { return f.store.snapshot().Service("default", "another") == nil }
	start := time.Now()
	for time.Since(start) < 1500*time.Millisecond || waits() && time.Since(start) < 20*time.Second {
		slowest = max(slowest, f.rewrite("a.yaml", service("a")+"---\n", service("b"), pause))
		<-next.C
	}
	if waits() {
		t.Error("the other file waits too")
	}
	f.services("a another b")
	gone = stop()
	f.rewrite("a.yaml", service("a"), "", 0)
	f.services("a another") // it is quiet, so the edit counts
	return slowest, gone
}

// watch looks all the time, until stop, whether the Services are there, and tells of one that was not.
func (f *folder) watch(names ...string) (stop func() (gone string)) {
	quit, done := make(chan struct{}), make(chan string, 1)
	go func() {
		defer close(done)
		for {
			now := f.store.snapshot()
			for _, name := range names {
				if now.Service("default", name) == nil {
					done <- name
					return
				}
			}
			select {
			case <-quit:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() string { close(quit); return <-done }
}

// TestScan_FileChangesWhileItIsRead is what no hold-off helps against.
func TestScan_FileChangesWhileItIsRead(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", service("a"))
	f.write("b.yaml", service("b"))
	long := time.Now().Add(-time.Minute)
	f.do(os.Chtimes(f.path("a.yaml"), long, long))
	f.do(os.Chtimes(f.path("b.yaml"), long, long))
	r := &filesRun{store: NewStore(), log: zap.NewNop(), fsys: os.DirFS(f.dir), quiet: time.Second, dirty: map[string]bool{}}
	names := func() (names string) {
		f.do(r.read())
		for s := range r.store.snapshot().Services() {
			names += s.Name
		}
		return names
	}
	equal(t, "at first", names(), "ab")

	f.do(os.WriteFile(f.path("a.yaml"), []byte(service("c")), 0o644))
	f.do(os.Chtimes(f.path("a.yaml"), long, long))
	r.dirty["a.yaml"] = true
	r.fsys = openHook{r.fsys, func() { f.do(os.Truncate(f.path("a.yaml"), 0)) }}
	equal(t, "half written", names(), "ab")
	equal(t, "to be read again", r.dirty, map[string]bool{"a.yaml": true})

	r.fsys = os.DirFS(f.dir)
	f.do(os.WriteFile(f.path("a.yaml"), []byte(service("c")), 0o644))
	equal(t, "just written", names(), "ab")
	future := time.Now().Add(time.Hour)
	f.do(os.Chtimes(f.path("a.yaml"), future, future)) // clocks differ, which must not mean never
	equal(t, "from the future", names(), "bc")
	equal(t, "nothing to be read again", r.dirty, map[string]bool{})
	f.write("a.yaml", service("another"))
	equal(t, "replaced as a whole", names(), "anotherb")
	f.write("a.yaml", service("d"))
	equal(t, "replaced by less", names(), "anotherb")
	f.do(os.Chtimes(f.path("a.yaml"), long, long))
	equal(t, "quiet", names(), "bd")
}

// openHook does something after a file was opened.
type openHook struct {
	fs.FS
	opened func()
}

func (h openHook) Open(name string) (fs.File, error) {
	f, err := h.FS.Open(name)
	if name == "." || err != nil {
		return f, err
	}
	return readHook{f, h.opened}, nil
}

type readHook struct {
	fs.File
	before func()
}

func (h readHook) Read(p []byte) (int, error) {
	h.before()
	return h.File.Read(p)
}

func TestFiles_EditIsLiveSoon(t *testing.T) {
	f := newFolder(t)
	f.config.HoldOff = 0
	f.write("a.yaml", service("a"))
	f.run()
	f.services("a")
	best := time.Hour // of some: a machine may be busy with others
	for i := 0; i < 3 || i < 30 && best > 5*defaultHoldOff; i++ {
		name := []string{"b", "longer", "c"}[i%3]
		start := time.Now()
		f.do(os.WriteFile(f.path("a.yaml"), []byte(service(name)), 0o644))
		f.services(name)
		took := time.Since(start)
		t.Logf("live after %s", took)
		if best = min(best, took); took < defaultHoldOff {
			t.Errorf("live after %s", took)
		}
	}
	if best > 5*defaultHoldOff {
		t.Errorf("live after %s at best", best)
	}
}
