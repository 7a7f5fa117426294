package manifests

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// folderWatch tells that something under a folder may have changed. Where the kernel cannot
// tell (no more inotify watches, the folder is gone), it asks for a look now and then.
type folderWatch struct {
	dir string // absolute
	log *zap.Logger
	w   *fsnotify.Watcher // nil if there is none to be had
	// blind is whether some changes go unnoticed.
	blind bool
}

// pollEvery is how often a folder is read that cannot be watched.
const pollEvery = 2 * time.Second

func newFolderWatch(dir string, log *zap.Logger) *folderWatch {
	f := &folderWatch{dir: dir, log: log}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("folder cannot be watched and is read every few seconds instead", zap.String("folder", dir), zap.Error(err))
		return f
	}
	f.w = w
	return f
}

func (f *folderWatch) close() {
	if f.w != nil {
		_ = f.w.Close() // it has nothing left to lose
	}
}

// begin starts a new look at the folder. The folder above tells when this one is replaced.
func (f *folderWatch) begin() {
	f.blind = f.w == nil
	f.add(filepath.Dir(f.dir))
}

// visit watches one folder, named from the top.
func (f *folderWatch) visit(name string) {
	f.add(filepath.Join(f.dir, filepath.FromSlash(name)))
}

// link watches the folder that the target of a link lies in.
func (f *folderWatch) link(name string) {
	target, err := filepath.EvalSymlinks(filepath.Join(f.dir, filepath.FromSlash(name)))
	if err == nil {
		f.add(filepath.Dir(target))
	}
}

func (f *folderWatch) add(dir string) {
	if f.w == nil {
		return
	}
	if err := f.w.Add(dir); err != nil {
		f.log.Debug("cannot watch", zap.String("folder", dir), zap.Error(err))
		f.blind = true
	}
}

func (f *folderWatch) events() <-chan fsnotify.Event {
	if f.w == nil {
		return nil
	}
	return f.w.Events
}

func (f *folderWatch) errors() <-chan error {
	if f.w == nil {
		return nil
	}
	return f.w.Errors
}

// place says what a change is about: one file of the folder, or any of them (all), or none.
func (f *folderWatch) place(e fsnotify.Event) (name string, all, relevant bool) {
	if e.Name == f.dir {
		return "", true, true
	}
	rel, err := filepath.Rel(f.dir, e.Name)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		// Beside the folder, where its parent is watched for its sake alone; or where a
		// link leads, which can be the same place.
		return "", true, filepath.Dir(e.Name) != filepath.Dir(f.dir) || isManifest(e.Name)
	}
	return path.Clean(filepath.ToSlash(rel)), false, true
}

// lost says whether changes went unnoticed.
func lost(err error) bool { return errors.Is(err, fsnotify.ErrEventOverflow) }
