// Package spool keeps jobs on this machine that could not be given to a broker,
// until they can be.
//
// A spool is a directory that nobody else can read, with one file for each job,
// named after its id. What Add has returned is on the disk. A job leaves with
// Remove, after the broker has confirmed it: a crash between the two sends it
// again under the same id, and the agent runs it once.
package spool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq"
)

// Max is how many jobs a spool holds.
const Max = 1000

const (
	suffix   = ".json"
	lockName = "lock"
	newName  = ".new-*"
	lockPoll = 50 * time.Millisecond
	strayAge = time.Hour // of half-written files
)

// An Entry is a job that waits in a spool.
type Entry struct {
	ID      string    `json:"id"` // ULID
	Pool    string    `json:"pool"`
	Config  string    `json:"config,omitempty"` // absolute path of the pool's file, where it was named
	Command string    `json:"command"`
	Args    []Arg     `json:"args,omitempty"`
	Words   []string  `json:"words,omitempty"`
	Key     string    `json:"key,omitempty"`
	InOrder bool      `json:"in_order,omitempty"`
	Force   bool      `json:"force,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
	Sender  string    `json:"sender,omitempty"`
	Kept    time.Time `json:"kept"` // when it was put here
}

// An Arg is a cbsdmq.Arg.
type Arg struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Expired reports whether the agent would refuse it.
func (e *Entry) Expired(now time.Time) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) }

// A Spool is a directory; it is made by the first Add.
type Spool struct{ dir string }

// At is the spool in dir.
func At(dir string) Spool { return Spool{dir} }

// Dir is where it is.
func (s Spool) Dir() string { return s.dir }

// Default is the user's own spool, below the state directory of the XDG.
func Default() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "cbsdmq", "spool"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", cbsdmq.Errorf(cbsdmq.CodeBadConfig, "", "looking for the spool: %w", err).WithHint("name it with --spool-dir")
	}
	return filepath.Join(home, ".local", "state", "cbsdmq", "spool"), nil
}

// Add puts a job on the disk.
func (s Spool) Add(e Entry) error {
	if !cbsdmq.ValidULID(e.ID) {
		return fmt.Errorf("keeping a job: %q is not an id", e.ID)
	}
	if err := s.make(); err != nil {
		return err
	}
	all, _ := s.List() // a file that is no job is told by who sends; it keeps this one from nothing
	if len(all) >= Max {
		return cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "the spool %s is full: it has %d jobs", s.dir, len(all)).
			WithHint("`cbsdmq spool send` sends them, `cbsdmq spool drop` forgets them")
	}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, newName) // 0600
	if err != nil {
		return s.explain("keeping a job in", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), s.file(e.ID))
	}
	if err != nil {
		os.Remove(f.Name())
		return s.explain("keeping a job in", err)
	}
	return s.explain("keeping a job in", syncDir(s.dir))
}

// List returns the jobs, the oldest first. A file that is no job is an error
// that names it; the others are returned all the same.
func (s Spool) List() ([]Entry, error) {
	if err := s.check(); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, s.explain("reading", err)
	}
	var list []Entry
	var errs []error
	for _, f := range files {
		id, ok := strings.CutSuffix(f.Name(), suffix)
		if !ok || !cbsdmq.ValidULID(id) {
			continue
		}
		b, err := os.ReadFile(s.file(id))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was sent meanwhile
		}
		var e Entry
		if err == nil {
			err = json.Unmarshal(b, &e)
		}
		if err == nil && e.ID != id {
			err = fmt.Errorf("it is of job %q", e.ID)
		}
		if err != nil {
			errs = append(errs, cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "%s cannot be read as a job: %w", s.file(id), err).
				WithHint("look at it, then move it away"))
			continue
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.ID, b.ID) })
	return list, errors.Join(errs...)
}

// Remove forgets a job. It is no error where it is not there.
func (s Spool) Remove(id string) error {
	if err := os.Remove(s.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.explain("removing a job from", err)
	}
	return s.explain("removing a job from", syncDir(s.dir))
}

// Lock waits until nobody else sends from the spool, at most until ctx ends.
func (s Spool) Lock(ctx context.Context) (unlock func(), err error) {
	if err := s.check(); errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil // nothing to send
	} else if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, s.explain("locking", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			s.sweep()
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, s.explain("locking", err)
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			f.Close()
			return nil, cbsdmq.Errorf(cbsdmq.CodeHeld, "", "somebody else sends from the spool %s", s.dir).WithHint("try again when that has ended")
		}
	}
}

// sweep removes what writers left that were killed.
func (s Spool) sweep() {
	left, _ := filepath.Glob(filepath.Join(s.dir, newName))
	for _, name := range left {
		if info, err := os.Lstat(name); err == nil && time.Since(info.ModTime()) > strayAge {
			os.Remove(name)
		}
	}
}

func (s Spool) file(id string) string { return filepath.Join(s.dir, id+suffix) }

// make makes the directory and what is missing above it, synced.
func (s Spool) make() error {
	var missing []string
	for dir := s.dir; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			break
		}
		missing = append(missing, dir)
	}
	for _, dir := range slices.Backward(missing) {
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return s.explain("making", err)
		}
		if err := syncDir(filepath.Dir(dir)); err != nil {
			return s.explain("making", err)
		}
	}
	return s.check()
}

// check refuses a directory that is somebody else's: jobs in it would be sent in
// this user's name.
func (s Spool) check() error {
	info, err := os.Stat(s.dir)
	if err != nil {
		return s.explain("looking at", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(s.dir, &st); err != nil {
		return s.explain("looking at", err)
	}
	refuse := func(format string, args ...any) error {
		return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "", "the spool %s %s", s.dir, fmt.Sprintf(format, args...)).
			WithHint("name a directory of your own, mode 0700, with --spool-dir or CBSDMQ_SPOOL")
	}
	switch {
	case !info.IsDir():
		return refuse("is not a directory")
	case int(st.Uid) != os.Geteuid():
		return refuse("belongs to user %d", st.Uid)
	case info.Mode().Perm()&0o077 != 0:
		return refuse("has mode %04o: others can look into it", info.Mode().Perm())
	}
	return nil
}

func (s Spool) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	return cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "%s the spool %s: %w", doing, s.dir, err).
		WithHint("name another directory with --spool-dir or CBSDMQ_SPOOL")
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
