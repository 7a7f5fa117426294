package manifests

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FilesConfig says which folder to read.
type FilesConfig struct {
	// Dir is the folder. All .yaml, .yml and .json files in it and below are read, but for
	// hidden ones; a link to a file is followed, one to a folder is not.
	Dir string
	// FS, if set, is read once instead of Dir and never watched: manifests in the binary.
	FS fs.FS
	// Namespaces are the only ones whose objects are used; empty means all. Objects without a
	// namespace are used in any case.
	Namespaces []string
	// HoldOff is how long the folder has to be quiet before a change in it is read;
	// 100 ms if zero. It is read at the latest after ten times that, but for files that are
	// being written even then.
	HoldOff time.Duration
	// Log may be nil.
	Log *zap.Logger
}

const (
	defaultHoldOff = 100 * time.Millisecond
	holdOffFactor  = 10
)

// Validate reports what is wrong, in one line.
func (c FilesConfig) Validate() error {
	if c.HoldOff < 0 {
		return fmt.Errorf("hold-off of the manifests folder is negative: %s", c.HoldOff)
	}
	if slices.Contains(c.Namespaces, "") {
		return errors.New("manifests: FilesConfig.Namespaces has an empty name")
	}
	if c.FS != nil {
		return nil
	}
	if c.Dir == "" {
		return errors.New("no manifests folder is given")
	}
	info, err := os.Stat(c.Dir)
	if err != nil {
		return fmt.Errorf("manifests folder %s: %s", c.Dir, reason(err))
	}
	if !info.IsDir() {
		return fmt.Errorf("manifests folder %s: not a folder", c.Dir)
	}
	return nil
}

// Files is the Source that reads a folder of ordinary Kubernetes YAML, and follows it. A file
// that cannot be read is a Problem, and what it held before stays. A folder that is gone
// changes nothing; an empty one is a complete view of nothing.
//
// Objects have no creationTimestamp unless the file says one, so that of two Ingresses that
// want the same path the first by namespace and name is the older.
type Files struct {
	config FilesConfig
	log    *zap.Logger
	ran    atomic.Bool
}

// NewFiles returns a Source that does nothing until Run.
func NewFiles(config FilesConfig) *Files {
	log := config.Log
	if log == nil {
		log = zap.NewNop()
	}
	return &Files{config: config, log: log}
}

// Want is Source.Want. It does nothing: all that is in the folder is in the Store.
func (f *Files) Want([]Ref) {}

// Run is Source.Run. Files run once.
func (f *Files) Run(ctx context.Context, store *Store) error {
	if err := f.config.Validate(); err != nil {
		return err
	}
	if f.ran.Swap(true) {
		return errors.New("manifests: Files.Run called twice")
	}
	r := &filesRun{store: store, log: f.log, fsys: f.config.FS, namespaces: f.config.Namespaces, dirty: map[string]bool{}}
	if r.fsys == nil {
		dir, err := filepath.Abs(f.config.Dir)
		if err != nil {
			return fmt.Errorf("manifests folder: %w", err)
		}
		r.fsys, r.quiet = os.DirFS(dir), cmp.Or(f.config.HoldOff, defaultHoldOff)
		r.watch = newFolderWatch(dir, f.log)
		defer r.watch.close()
	}
	if err := r.read(); err != nil {
		return fmt.Errorf("manifests folder %s: %s", f.config.Dir, reason(err))
	}
	store.Open()
	if r.watch == nil {
		<-ctx.Done()
		return nil
	}
	r.follow(ctx, holdOff{quiet: r.quiet, max: holdOffFactor * r.quiet})
	return nil
}

// filesRun is what running Files have; one goroutine owns it.
type filesRun struct {
	store *Store
	log   *zap.Logger
	fsys  fs.FS
	watch *folderWatch // nil if nothing is watched

	namespaces []string      // all if empty
	quiet      time.Duration // after which a file counts as written

	files map[string]*file
	view  view
	dirty map[string]bool // files to read again: a change was seen, or they are half written
	all   bool            // any file may have changed

	unsettled bool // the last look met files that are being written
}

// follow reads the folder again whenever it changes, until ctx ends.
func (r *filesRun) follow(ctx context.Context, hold holdOff) {
	due := time.NewTimer(hold.max)
	due.Stop() // nothing is due yet
	defer due.Stop()
	lookAgain := func() {
		if r.unsettled {
			due.Reset(hold.touch(time.Now()))
		}
	}
	lookAgain()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.watch.events():
			if r.note(r.watch.place(e)) {
				due.Reset(hold.touch(time.Now()))
			}
		case err := <-r.watch.errors():
			r.log.Warn("watching the manifests folder", zap.Error(err))
			r.all = r.all || lost(err)
			due.Reset(hold.touch(time.Now()))
		case <-poll.C:
			if r.watch.blind && hold.first.IsZero() {
				r.again()
				lookAgain()
			}
		case <-due.C:
			hold.done()
			r.again()
			lookAgain()
		}
	}
}

// note remembers a change; relevant is whether there is one.
func (r *filesRun) note(name string, all, relevant bool) bool {
	if !relevant {
		return false
	}
	if all {
		r.all = true
	} else {
		r.dirty[name] = true
	}
	return true
}

// again reads the folder. If it is gone, everything stays.
func (r *filesRun) again() {
	err := r.read()
	if err == nil {
		return
	}
	r.watch.blind = true // until there is something to watch
	top := fileRef(".")
	r.view.problems[top] = []Problem{{
		Object: top,
		Text:   fmt.Sprintf("cannot read the manifests folder: %s; what was in it stays in use", reason(err)),
	}}
	r.store.SetProblems(top, r.view.problems[top]...)
}

func (r *filesRun) read() error {
	r.unsettled = false
	s := scan{fsys: r.fsys, old: r.files, dirty: r.dirty, quiet: r.quiet, visit: func(string) {}, link: func(string) {}}
	if r.watch != nil {
		r.watch.begin()
		s.visit, s.link = r.watch.visit, r.watch.link
	}
	if r.all {
		s.dirty = map[string]bool{}
		for name := range r.files {
			s.dirty[name] = true
		}
	}
	if err := s.run(); err != nil {
		return err
	}
	r.report(s.files)
	r.files, r.dirty, r.all = s.files, s.unsettled, false
	r.unsettled = len(s.unsettled) > 0
	v := assemble(s.files, r.namespaces)
	for about, p := range s.problems {
		v.problems[about] = append(v.problems[about], p...)
	}
	r.publish(v)
	return nil
}

// report logs what is new.
func (r *filesRun) report(files map[string]*file) {
	var ignored int
	for name, f := range files {
		ignored += f.content.ignored
		if r.files[name] == f {
			continue
		}
		for _, p := range f.failure {
			r.log.Warn("manifest file cannot be used", zap.String("file", name), zap.String("where", p.Field), zap.String("reason", p.Text))
		}
	}
	r.log.Debug("manifests read", zap.Int("files", len(files)), zap.Int("ignored objects", ignored))
}

// publish brings the difference to the Store, as one change.
func (r *filesRun) publish(v view) {
	old := r.view
	r.store.Update(func(put func(metav1.Object), remove func(Ref)) {
		for _, ref := range sortedRefs(v.objects) {
			obj := v.objects[ref]
			before, had := old.objects[ref]
			switch {
			case had && (before == obj || equality.Semantic.DeepEqual(before, obj)):
				v.objects[ref] = before
			default:
				put(obj)
			}
		}
		for ref := range old.objects {
			if _, ok := v.objects[ref]; !ok {
				remove(ref)
			}
		}
	})
	for about := range old.problems {
		if _, ok := v.problems[about]; !ok {
			r.store.SetProblems(about)
		}
	}
	for about, problems := range v.problems {
		r.store.SetProblems(about, problems...)
	}
	r.view = v
}
