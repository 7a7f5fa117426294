package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func binary(t *testing.T) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(f, bytes.Repeat([]byte("program"), 10_000), 0o755); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWriteIsReproducible(t *testing.T) {
	c := Config{Binary: binary(t), Name: "localhost/x:1"}
	var a, b bytes.Buffer
	if err := Write(c, &a); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(c.Binary, epoch, epoch); err != nil {
		t.Fatal(err)
	}
	if err := Write(c, &b); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the same input gave two different images")
	}
}

// The tar must be a layout a stranger's reader accepts, with every digest right.
func TestWriteIsAValidLayout(t *testing.T) {
	c := Config{Binary: binary(t), Name: "localhost/x:1", Entrypoint: "/usr/bin/x", User: "1:2", Args: []string{"serve"}, Arch: "arm64"}
	var buf bytes.Buffer
	if err := Write(c, &buf); err != nil {
		t.Fatal(err)
	}
	dir := untar(t, &buf)

	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != c.Name {
		t.Errorf("name = %q, want %q", got, c.Name)
	}
	p, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	img, err := p.Image(index.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cf.Config.User != "1:2" || cf.Config.Entrypoint[0] != "/usr/bin/x" || cf.Config.Cmd[0] != "serve" || cf.Architecture != "arm64" {
		t.Errorf("configuration is %+v", cf)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers = %v, %v; want one", layers, err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]int64{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[h.Name] = h.Mode
	}
	for name, mode := range map[string]int64{"usr/": 0o755, "usr/bin/": 0o755, "usr/bin/x": 0o755, "tmp/": 0o1777, "etc/passwd": 0o644} {
		if modes[name] != mode {
			t.Errorf("%s has mode %o, want %o", name, modes[name], mode)
		}
	}
}

func TestValidateSaysWhatIsWrong(t *testing.T) {
	for want, c := range map[string]Config{
		"no binary":         {Name: "a:1"},
		"not of the form":   {Binary: "b", Name: "localhost:5000/a"},
		"not an absolute":   {Binary: "b", Name: "a:1", Entrypoint: "a"},
		"name \":1\" is no": {Binary: "b", Name: ":1"},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate(%+v) = %v, want %q", c, err, want)
		}
	}
}

func untar(t *testing.T, r io.Reader) string {
	t.Helper()
	dir := t.TempDir()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, 0o755)
		} else {
			var content []byte
			if content, err = io.ReadAll(tr); err == nil {
				err = os.WriteFile(name, content, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
