package manifests

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Bounds of a folder. They are far above what anybody serves, and keep a folder that is not
// meant for Portico from eating the memory.
const (
	maxFileBytes = 16 << 20
	maxFiles     = 50_000
	maxDepth     = 32
)

// file is one manifest file: what the last good read of it gave, and what is wrong with it now.
type file struct {
	info    fs.FileInfo
	content decoded
	good    bool      // content comes from a good read
	failure []Problem // of the last read; empty if that was good
}

// scan reads a folder. Files that have not changed are taken over from old.
type scan struct {
	fsys fs.FS
	old  map[string]*file
	// dirty are files to read even if they look unchanged: a write can leave size and time alone.
	dirty map[string]bool
	// visit is called before a folder is read, so that no change can come between.
	visit func(dir string)
	// link is called for each symbolic link that is followed.
	link func(name string)

	files    map[string]*file
	problems map[Ref][]Problem
}

// run scans everything. An error is about the folder itself: then nothing is known.
func (s *scan) run() error {
	s.files, s.problems = map[string]*file{}, map[Ref][]Problem{}
	return s.dir(".", 0)
}

func (s *scan) dir(name string, depth int) error {
	s.visit(name)
	entries, err := fs.ReadDir(s.fsys, name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		entry := path.Join(name, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."): // hidden, and the ..data of a mounted ConfigMap
		case e.IsDir():
			s.subfolder(entry, depth+1)
		case isManifest(e.Name()):
			s.entry(entry, e)
		}
	}
	return nil
}

func isManifest(name string) bool {
	switch path.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// subfolder reads a folder in the folder. One that cannot be read keeps the files it had.
func (s *scan) subfolder(name string, depth int) {
	if depth > maxDepth {
		s.problem(name, "folders more than %d deep are not read", maxDepth)
		return
	}
	err := s.dir(name, depth)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return
	}
	s.problem(name, "cannot read the folder: %s; what was in it stays in use", reason(err))
	for old, f := range s.old {
		if strings.HasPrefix(old, name+"/") {
			s.files[old] = f
		}
	}
}

func (s *scan) entry(name string, e fs.DirEntry) {
	if len(s.files) >= maxFiles {
		s.problem(".", "more than %d files; the rest is not read", maxFiles)
		return
	}
	if e.Type()&fs.ModeSymlink != 0 {
		s.link(name)
	}
	info, err := fs.Stat(s.fsys, name) // follows links
	old := s.old[name]
	switch {
	case errors.Is(err, fs.ErrNotExist): // gone, or a link to nowhere
	case err != nil:
		s.files[name] = old.failed(name, nil, err)
	case info.IsDir(): // a link to a folder; those could go round in circles
	case !info.Mode().IsRegular():
		s.files[name] = old.failed(name, nil, errors.New("not a regular file"))
	case old != nil && !s.dirty[name] && same(old.info, info):
		s.files[name] = old
	default:
		s.read(name, info, old)
	}
}

// same says whether a file is the one it was, by all that can be told without reading it.
func same(a, b fs.FileInfo) bool {
	return a != nil && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}

func (s *scan) read(name string, info fs.FileInfo, old *file) {
	data, err := readFile(s.fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		s.files[name] = old.failed(name, info, err)
		return
	}
	content, err := decodeFile(name, data)
	if err != nil {
		s.files[name] = old.failed(name, info, err)
		return
	}
	s.files[name] = &file{info: info, content: content, good: true}
}

func readFile(fsys fs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		err = fmt.Errorf("larger than %d MiB", maxFileBytes>>20)
	}
	return data, err
}

// failed gives what becomes of a file, known before or not, that cannot be used now: the
// last good content stays.
func (f *file) failed(name string, info fs.FileInfo, err error) *file {
	failed := &file{info: info}
	text := "nothing of this file is used"
	if f != nil && f.good {
		failed.content, failed.good = f.content, true
		text = "what it held before stays in use"
	}
	p := Problem{Object: fileRef(name), Text: fmt.Sprintf("%s; %s", reason(err), text)}
	if at, ok := errors.AsType[*lineError](err); ok {
		p.Field, p.Text = lineField(at.line), fmt.Sprintf("%s; %s", at.err, text)
	}
	failed.failure = []Problem{p}
	return failed
}

// reason leaves out the path, which the Problem has already.
func reason(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

func (s *scan) problem(name, format string, args ...any) {
	about := fileRef(name)
	s.problems[about] = []Problem{{Object: about, Text: fmt.Sprintf(format, args...)}}
}
