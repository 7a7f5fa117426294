package manifests

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
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
	// quiet is how old a write has to be for the file to count as written.
	quiet time.Duration
	// visit is called before a folder is read, so that no change can come between.
	visit func(dir string)
	// link is called for each symbolic link that is followed.
	link func(name string)

	files    map[string]*file
	problems map[Ref][]Problem
	// unsettled are the files that are being written; they are what they were.
	unsettled map[string]bool
}

// run scans everything. An error is about the folder itself: then nothing is known.
func (s *scan) run() error {
	s.files, s.problems, s.unsettled = map[string]*file{}, map[Ref][]Problem{}, map[string]bool{}
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
		s.read(name, old)
	}
}

// same says whether a file is the one it was, by all that can be told without reading it.
func same(a, b fs.FileInfo) bool {
	return a != nil && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}

func (s *scan) read(name string, old *file) {
	data, info, settled, err := s.contents(name, old)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		s.files[name] = old.failed(name, info, err)
		return
	}
	if !settled {
		s.unsettled[name] = true
		if old != nil {
			s.files[name] = old
			return
		}
	}
	content, err := decodeFile(name, data)
	if err != nil {
		s.files[name] = old.failed(name, info, err)
		return
	}
	if content.blank && old != nil && len(old.content.objects) > 0 {
		s.files[name] = old.emptied(name, info)
		return
	}
	s.files[name] = &file{info: info, content: content, good: true}
}

// contents reads a file. It is settled if nobody seems to be writing it.
func (s *scan) contents(name string, old *file) (data []byte, info fs.FileInfo, settled bool, err error) {
	f, err := s.fsys.Open(name)
	if err != nil {
		return nil, nil, false, err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, nil, false, err
	}
	age := time.Since(info.ModTime())
	if data, err = io.ReadAll(io.LimitReader(f, maxFileBytes+1)); err != nil {
		return nil, info, false, err
	}
	if len(data) > maxFileBytes {
		return nil, info, false, fmt.Errorf("larger than %d MiB", maxFileBytes>>20)
	}
	after, err := f.Stat()
	if err != nil {
		return nil, info, false, err
	}
	// A time in the future is of another clock and says nothing.
	young := age >= 0 && age < s.quiet
	writing := !same(info, after) || young && old.maybeHalf(info)
	return data, info, !writing, nil
}

// maybeHalf says whether a file that was just written may be half of what it will be. One that
// another has taken the place of is whole, but those that remove and write it anew are known.
func (f *file) maybeHalf(now fs.FileInfo) bool {
	if f == nil || f.info == nil {
		return now.Size() == 0
	}
	return now.Size() < f.info.Size() || now.Size() == 0 || os.SameFile(f.info, now)
}

// emptied gives what becomes of a file that held objects and has none now.
func (f *file) emptied(name string, info fs.FileInfo) *file {
	return &file{info: info, content: f.content, good: true, failure: []Problem{{
		Object: fileRef(name),
		Text:   "holds no object now; what it held before stays live; delete the file to remove it",
	}}}
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
