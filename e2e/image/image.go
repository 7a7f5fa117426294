// Package image writes a container image of one static program as an OCI
// layout in a tar file: what `ctr images import`, `podman load` and registries'
// tools read. The same input gives the same bytes.
package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Config describes an image.
type Config struct {
	// Binary is the static program to put into the image.
	Binary string
	// Name is the full name with tag, such as localhost/portico:dev.
	Name string
	// Entrypoint is where in the image the program goes and what is run.
	// Empty: / and the file name of Binary.
	Entrypoint string
	// Args follow the entrypoint unless a Pod says otherwise.
	Args []string
	// User is uid:gid. Empty: 65532:65532, which is not root.
	User string
	// Arch is the program's architecture. Empty: this machine's.
	Arch string
	// Labels are written into the image's configuration.
	Labels map[string]string
}

// DefaultUser owns the process unless Config.User says otherwise.
const DefaultUser = "65532:65532"

// epoch is the time of everything in an image: a real one would make every
// build differ.
var epoch = time.Unix(0, 0).UTC()

// Validate fills in defaults and says what is missing.
func (c *Config) Validate() error {
	if c.Binary == "" {
		return errors.New("image: no binary given")
	}
	name, tag, ok := cutTag(c.Name)
	if !ok || name == "" || tag == "" {
		return fmt.Errorf("image: name %q is not of the form registry/name:tag", c.Name)
	}
	if c.Entrypoint == "" {
		c.Entrypoint = "/" + filepath.Base(c.Binary)
	}
	if !path.IsAbs(c.Entrypoint) {
		return fmt.Errorf("image: entrypoint %q is not an absolute path", c.Entrypoint)
	}
	if c.User == "" {
		c.User = DefaultUser
	}
	if c.Arch == "" {
		c.Arch = runtime.GOARCH
	}
	return nil
}

// cutTag splits registry/name:tag; a colon before the last slash is a port.
func cutTag(s string) (name, tag string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i < strings.LastIndexByte(s, '/') {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// WriteFile writes the image to file, which is only ever a whole one.
func WriteFile(c Config, file string) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".image-*")
	if err != nil {
		return fmt.Errorf("create image file: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	if err := errors.Join(Write(c, tmp), tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), file); err != nil {
		return fmt.Errorf("keep image file: %w", err)
	}
	return nil
}

// Write writes the image as a tar of an OCI layout.
func Write(c Config, w io.Writer) error {
	if err := c.Validate(); err != nil {
		return err
	}
	img, err := build(c)
	if err != nil {
		return err
	}
	return writeLayout(img, c.Name, w)
}

// build makes the image in memory: one layer and its configuration.
func build(c Config) (v1.Image, error) {
	content, err := layerContent(c)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithCompressionLevel(gzip.BestSpeed),
		tarball.WithMediaType(types.OCILayer),
	)
	if err != nil {
		return nil, fmt.Errorf("make image layer: %w", err)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{
		Layer:   layer,
		History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "portico e2e/image"},
	})
	if err != nil {
		return nil, fmt.Errorf("append image layer: %w", err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read image configuration: %w", err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Created = "linux", c.Arch, v1.Time{Time: epoch}
	cf.Config = v1.Config{
		User:       c.User,
		Entrypoint: []string{c.Entrypoint},
		Cmd:        c.Args,
		Env:        []string{"PATH=/usr/local/bin:/usr/bin:/bin"},
		WorkingDir: "/",
		Labels:     c.Labels,
	}
	img, err = mutate.ConfigFile(img, cf)
	if err != nil {
		return nil, fmt.Errorf("set image configuration: %w", err)
	}
	return img, nil
}

// layerContent is the tar of the image's only layer: the program, the two
// accounts, and a /tmp anybody may write to.
func layerContent(c Config) ([]byte, error) {
	program, err := os.ReadFile(c.Binary)
	if err != nil {
		return nil, fmt.Errorf("read binary: %w", err)
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	add := func(name string, mode int64, content []byte) {
		h := &tar.Header{Name: name, Mode: mode, ModTime: epoch, Format: tar.FormatPAX}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		} else {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		}
		if err == nil {
			err = tw.WriteHeader(h)
		}
		if err == nil {
			_, err = tw.Write(content)
		}
	}
	add("etc/", 0o755, nil)
	add("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"))
	add("etc/group", 0o644, []byte("root:x:0:\nnonroot:x:65532:\n"))
	add("tmp/", 0o1777, nil)
	// Its folders come first: some readers want a parent before its children.
	rel := strings.TrimPrefix(path.Clean(c.Entrypoint), "/")
	for i, r := range rel {
		if r == '/' && rel[:i+1] != "etc/" && rel[:i+1] != "tmp/" {
			add(rel[:i+1], 0o755, nil)
		}
	}
	add(rel, 0o755, program)
	if err := errors.Join(err, tw.Close()); err != nil {
		return nil, fmt.Errorf("write image layer: %w", err)
	}
	return buf.Bytes(), nil
}

// writeLayout writes img as the tar of an OCI layout that calls it name.
func writeLayout(img v1.Image, name string, w io.Writer) error {
	desc, err := partial.Descriptor(img)
	if err != nil {
		return fmt.Errorf("describe image: %w", err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return fmt.Errorf("read image configuration: %w", err)
	}
	_, tag, _ := cutTag(name)
	desc.Platform = &v1.Platform{OS: cf.OS, Architecture: cf.Architecture}
	desc.Annotations = map[string]string{
		// What containerd calls the image once it is imported, and what other
		// tools do, who want the tag alone here.
		"io.containerd.image.name":          name,
		"org.opencontainers.image.ref.name": tag,
	}
	index, err := json.Marshal(v1.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests:     []v1.Descriptor{*desc},
	})
	if err != nil {
		return fmt.Errorf("write image index: %w", err)
	}
	blobs, err := imageBlobs(img)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	files := append([]file{
		{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{"index.json", index},
		{"blobs/", nil},
		{"blobs/sha256/", nil},
	}, blobs...)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content)), ModTime: epoch, Typeflag: tar.TypeReg}
		if strings.HasSuffix(f.name, "/") {
			h.Mode, h.Typeflag = 0o755, tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("write image: %w", err)
		}
		if _, err := tw.Write(f.content); err != nil {
			return fmt.Errorf("write image: %w", err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}

// file is one entry of the layout's tar.
type file struct {
	name    string
	content []byte
}

// imageBlobs are the manifest, the configuration and the layers of img, each
// under the digest it is known by.
func imageBlobs(img v1.Image) ([]file, error) {
	manifest, err := img.RawManifest()
	if err != nil {
		return nil, fmt.Errorf("read image manifest: %w", err)
	}
	manifestDigest, err := img.Digest()
	if err != nil {
		return nil, fmt.Errorf("read image digest: %w", err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read image configuration: %w", err)
	}
	configDigest, err := img.ConfigName()
	if err != nil {
		return nil, fmt.Errorf("read configuration digest: %w", err)
	}
	blobs := []file{
		{"blobs/sha256/" + manifestDigest.Hex, manifest},
		{"blobs/sha256/" + configDigest.Hex, config},
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("read image layers: %w", err)
	}
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return nil, fmt.Errorf("read layer digest: %w", err)
		}
		r, err := l.Compressed()
		if err != nil {
			return nil, fmt.Errorf("read layer: %w", err)
		}
		content, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, fmt.Errorf("read layer: %w", err)
		}
		blobs = append(blobs, file{"blobs/sha256/" + d.Hex, content})
	}
	return blobs, nil
}
