package manifests

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// folder is a folder that Files follow.
type folder struct {
	t      *testing.T
	dir    string
	config FilesConfig // but for Dir
	store  *Store
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

func (f *folder) do(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// write replaces a file as editors do: beside it, then by rename.
func (f *folder) write(name, text string) {
	f.t.Helper()
	f.do(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.do(os.WriteFile(f.path(name)+".new", []byte(text), 0o644))
	f.do(os.Rename(f.path(name)+".new", f.path(name)))
}

func service(name string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\n"
}

// run starts Files on what is in the folder now.
func (f *folder) run() {
	f.t.Helper()
	f.store = NewStore()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	config := f.config
	config.Dir = f.dir
	go func() { done <- NewFiles(config).Run(ctx, f.store) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
}

// services waits until these are the Services, and no problem is there but in the named files.
func (f *folder) services(want string, broken ...string) Change {
	f.t.Helper()
	return eventually(f.t, f.store, "services "+want+", broken "+strings.Join(broken, " "), func(c Change) bool {
		var got []string
		for s := range c.Objects.Services() {
			got = append(got, s.Name)
		}
		var files []string
		for _, p := range c.Problems {
			files = append(files, p.Object.Name)
		}
		return strings.Join(got, " ") == want && strings.Join(files, " ") == strings.Join(broken, " ")
	})
}

func newFolder(t *testing.T) *folder {
	t.Helper()
	return &folder{t: t, dir: t.TempDir(), config: FilesConfig{HoldOff: 5 * time.Millisecond}}
}

func TestFiles_FollowsFiles(t *testing.T) {
	f := newFolder(t)
	f.run()
	f.services("") // an empty folder is complete

	f.write("a.yaml", service("a"))
	f.services("a")
	f.write("b.yml", service("b"))
	f.write("c.json", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"}}`)
	f.write("d.txt", service("d"))
	f.write(".hidden.yaml", service("hidden"))
	f.write(".git/x.yaml", service("hidden"))
	f.services("a b c")
	f.do(os.WriteFile(f.path("a.yaml"), []byte(service("a2")), 0o644)) // in place
	f.services("a2 b c")
	f.do(os.Rename(f.path("b.yml"), f.path("b.yml.off")))
	f.services("a2 c")
	f.do(os.Remove(f.path("a.yaml")))
	f.services("c")
}

func TestFiles_FollowsFolders(t *testing.T) {
	f := newFolder(t)
	f.write("x/y/a.yaml", service("a"))
	f.run()
	f.services("a")
	f.write("new/deep/er/b.yaml", service("b"))
	f.services("a b")
	f.write("new/deep/er/c.yaml", service("c")) // in a folder that is new itself
	f.services("a b c")
	f.do(os.Rename(f.path("new"), f.path("moved")))
	f.write("moved/deep/d.yaml", service("d"))
	f.services("a b c d")
	f.do(os.RemoveAll(f.path("moved")))
	f.services("a")
	f.write("moved/e.yaml", service("e")) // a folder that was there before
	f.services("a e")
	f.write("moved/e.yaml", service("f"))
	f.services("a f")
}

func TestFiles_BrokenFileKeepsItsLastGoodContent(t *testing.T) {
	f := newFolder(t)
	f.write("bad.yaml", "kind: [\n")
	f.write("good.yaml", service("good"))
	f.write("two.yaml", service("one")+"---\n"+service("two"))
	f.run()
	c := f.services("good one two", "bad.yaml")
	if p := c.Problems[0]; p.Field != "line 1" || !strings.HasSuffix(p.Text, "; nothing of this file is used") {
		t.Errorf("%v", p)
	}

	f.write("two.yaml", service("one")+"---\n"+service("two")+"spec: {ports: [{port: http}]}\n")
	c = f.services("good one two", "bad.yaml", "two.yaml")
	equal(t, "problem", c.Problems[1].String(),
		"File two.yaml: line 8: spec.ports[0].port of Service: want int32, have string; what it held before stays in use")
	f.write("good.yaml", service("better")) // others go on
	f.services("better one two", "bad.yaml", "two.yaml")
	f.write("two.yaml", ": :\n- {") // broken otherwise, twice in a row
	f.services("better one two", "bad.yaml", "two.yaml")

	f.write("two.yaml", service("two")+"---\n"+service("three"))
	f.write("bad.yaml", service("bad"))
	f.services("bad better three two")
	f.write("bad.yaml", "kind: [\n")
	f.services("bad better three two", "bad.yaml")
	f.do(os.Remove(f.path("bad.yaml")))
	f.services("better three two")
}

// TestFiles_MountedConfigMap does what kubelet's AtomicWriter does.
func TestFiles_MountedConfigMap(t *testing.T) {
	f := newFolder(t)
	payload := func(version string, files map[string]string) {
		t.Helper()
		f.do(os.Mkdir(f.path(version), 0o755))
		for name, text := range files {
			f.do(os.WriteFile(f.path(version+"/"+name), []byte(text), 0o644))
		}
		f.do(os.Symlink(version, f.path("..data_tmp")))
		f.do(os.Rename(f.path("..data_tmp"), f.path("..data")))
		for name := range files {
			if _, err := os.Lstat(f.path(name)); err != nil {
				f.do(os.Symlink(filepath.Join("..data", name), f.path(name)))
			}
		}
	}
	payload("..2026_01_01", map[string]string{"a.yaml": service("a"), "b.yaml": service("b")})
	f.run()
	f.services("a b")
	payload("..2026_01_02", map[string]string{"a.yaml": service("c"), "b.yaml": service("b")})
	f.do(os.RemoveAll(f.path("..2026_01_01")))
	f.services("b c")
	payload("..2026_01_03", map[string]string{"a.yaml": service("d")})
	f.do(os.Remove(f.path("b.yaml")))
	f.do(os.RemoveAll(f.path("..2026_01_02")))
	f.services("d")
}

func TestFiles_Links(t *testing.T) {
	f := newFolder(t)
	outside := t.TempDir()
	target := filepath.Join(outside, "target.yaml")
	f.do(os.WriteFile(target, []byte(service("a")), 0o644))
	f.do(os.Symlink(target, f.path("link.yaml")))
	f.do(os.Symlink(filepath.Join(outside, "nowhere"), f.path("dangling.yaml")))
	f.do(os.Symlink(".", f.path("circle")))
	f.do(os.Symlink(".", f.path("circle.yaml")))
	f.run()
	f.services("a")
	f.do(os.WriteFile(target, []byte(service("b")), 0o644))
	f.services("b")
}

func TestFiles_FolderIsReplaced(t *testing.T) {
	f := newFolder(t)
	parent := f.dir
	f.dir = filepath.Join(parent, "served")
	f.write("a.yaml", service("a"))
	f.run()
	f.services("a")
	f.do(os.Rename(f.dir, f.dir+".old"))
	f.services("a", ".") // gone: nothing changes
	f.write("b.yaml", service("b"))
	f.services("b")
	f.write("c.yaml", service("c"))
	f.services("b c")

	f.dir = filepath.Join(parent, "current") // a link that is turned to another release
	for _, release := range []string{"1", "2"} {
		f.do(os.Mkdir(filepath.Join(parent, release), 0o755))
		f.do(os.WriteFile(filepath.Join(parent, release, "a.yaml"), []byte(service("r"+release)), 0o644))
	}
	f.do(os.Symlink("1", f.dir))
	f.run()
	f.services("r1")
	f.do(os.Symlink("2", f.dir+".new"))
	f.do(os.Rename(f.dir+".new", f.dir))
	f.services("r2")
	f.write("b.yaml", service("b"))
	f.services("b r2")
}

func TestFiles_SameObjectTwice(t *testing.T) {
	f := newFolder(t)
	f.write("b.yaml", service("x")+"spec: {type: NodePort}\n")
	f.write("a.yaml", service("w")+"---\n"+service("x"))
	f.run()
	c := f.services("w x", "b.yaml")
	equal(t, "problem", c.Problems[0].String(), "File b.yaml: line 1: Service default/x is already in a.yaml; this one is not used")
	equal(t, "the first wins", string(c.Objects.Service("default", "x").Spec.Type), "ClusterIP")
	f.write("a.yaml", service("w"))
	c = f.services("w x")
	equal(t, "the second steps in", string(c.Objects.Service("default", "x").Spec.Type), "NodePort")
}

func TestFiles_Namespaces(t *testing.T) {
	const class = "---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: class}\n"
	in := func(namespace, name string) string {
		return strings.ReplaceAll(service(name), "name: "+name, "name: "+name+", namespace: "+namespace)
	}
	f := newFolder(t)
	f.config.Namespaces = []string{"ours", "default"}
	f.write("a.yaml", in("ours", "a")+"---\n"+in("theirs", "b")+class+"---\n"+in("theirs", "a"))
	f.write("b.yaml", in("theirs", "b")) // there twice, which is nobody's business
	f.write("c.yaml", "kind: [\n")
	f.write("d.yaml", service("d"))
	f.run()
	c := f.services("d a", "c.yaml")
	if c.Objects.Service("theirs", "a") != nil || c.Objects.IngressClass("class") == nil {
		t.Error("not what is in the namespaces and in none")
	}
	f.write("b.yaml", in("ours", "b"))
	f.services("d a b", "c.yaml")
	f.write("a.yaml", in("theirs", "a"))
	f.services("d b", "c.yaml")
}

func TestFiles_OnlyDifferencesAreChanges(t *testing.T) {
	f := newFolder(t)
	f.write("a.yaml", service("a")+"---\n"+service("b"))
	f.run()
	f.services("a b")
	f.write("a.yaml", "# a comment\n"+service("a")+"---\n"+service("b")+"---\n"+service("c"))
	equal(t, "refs", refs(f.services("a b c")), []string{"Service default/c"})
}

func TestFiles_PodsAreEndpoints(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: web}}\nstatus: {podIP: 127.0.0.1}\n"
	addresses := func(c Change) (got []string) {
		for s := range c.Objects.EndpointSlices("default", "web") {
			for _, e := range s.Endpoints {
				got = append(got, e.Addresses...)
			}
		}
		return got
	}
	f := newFolder(t)
	f.write("web.yaml", service("web")+"spec: {selector: {app: web}, ports: [{port: 80}]}\n")
	f.write("pod.yaml", pod)
	f.run()
	equal(t, "addresses", addresses(f.services("web")), []string{"127.0.0.1"})
	f.write("pod.yaml", strings.ReplaceAll(pod, "127.0.0.1", "127.0.0.2"))
	c := eventually(t, f.store, "new address", func(c Change) bool { return strings.Join(addresses(c), " ") == "127.0.0.2" })
	equal(t, "refs", refs(c), []string{"EndpointSlice default/web", "Pod default/p"})
	f.write("slice.yaml", "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s, labels: {"+discoveryv1.LabelServiceName+
		": web}}\naddressType: IPv4\nendpoints: [{addresses: [127.0.0.3]}]\nports: [{port: 80}]\n")
	eventually(t, f.store, "own slice", func(c Change) bool { return strings.Join(addresses(c), " ") == "127.0.0.3" })
	f.do(os.Remove(f.path("slice.yaml")))
	eventually(t, f.store, "pods again", func(c Change) bool { return strings.Join(addresses(c), " ") == "127.0.0.2" })
	f.do(os.Remove(f.path("pod.yaml")))
	eventually(t, f.store, "nothing", func(c Change) bool { return len(addresses(c)) == 0 })
}

func TestFiles_FS(t *testing.T) {
	store := NewStore()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	files := NewFiles(FilesConfig{FS: fstest.MapFS{
		"a.yaml":    {Data: []byte(service("a"))},
		"x/b.yaml":  {Data: []byte(service("b"))},
		"x/c.yaml":  {Data: make([]byte, maxFileBytes+1)},
		".x/d.yaml": {Data: []byte(service("d"))},
	}})
	go func() { done <- files.Run(ctx, store) }()
	files.Want([]Ref{{KindSecret, "a", "b"}})
	c := (&folder{t: t, store: store}).services("a b", "x/c.yaml")
	equal(t, "problem", c.Problems[0].Text, "larger than 16 MiB; nothing of this file is used")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := files.Run(ctx, store); err == nil {
		t.Error("a second Run")
	}
}

func TestFilesConfig_Validate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		config FilesConfig
		want   string
	}{
		{FilesConfig{}, "no manifests folder is given"},
		{FilesConfig{Dir: file + "/no"}, "manifests folder " + file + "/no: not a directory"},
		{FilesConfig{Dir: file + "2"}, "manifests folder " + file + "2: no such file or directory"},
		{FilesConfig{Dir: file}, "manifests folder " + file + ": not a folder"},
		{FilesConfig{Dir: filepath.Dir(file), Namespaces: []string{"a", ""}}, "manifests: FilesConfig.Namespaces has an empty name"},
		{FilesConfig{Dir: filepath.Dir(file), HoldOff: -1}, "hold-off of the manifests folder is negative: -1ns"},
	} {
		err := NewFiles(c.config).Run(t.Context(), NewStore())
		if err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestHoldOff(t *testing.T) {
	h := holdOff{quiet: 100 * time.Millisecond, max: time.Second}
	now := time.Unix(1000, 0)
	equal(t, "first", h.touch(now), 100*time.Millisecond)
	equal(t, "again", h.touch(now.Add(90*time.Millisecond)), 100*time.Millisecond)
	equal(t, "near the end", h.touch(now.Add(950*time.Millisecond)), 50*time.Millisecond)
	equal(t, "over", h.touch(now.Add(2*time.Second)), time.Duration(0))
	h.done()
	equal(t, "next burst", h.touch(now.Add(3*time.Second)), 100*time.Millisecond)
}
