package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxFree is how many pairs of files are kept to be used again.
	maxFree = 256
	// takeTries is how many free slots are tried before a new one is made.
	takeTries = 4
)

// A slot is a pair of output files, opened for one command.
type slot struct {
	n        int
	out, err int // descriptors, O_WRONLY|O_APPEND|O_CLOEXEC
}

// slots are the output files. Making and removing two files for each command
// can cost more than starting it, so they are used again, the one that was
// released first first, as soon as nobody else has them open.
//
// A command may leave a daemon behind that holds its output. Its slot is held:
// what the daemon writes is thrown away from time to time, and the slot is used
// again only after the daemon has closed it.
//
// slots are not safe for concurrent use.
type slots struct {
	dir  string
	last int // highest number in use
	free []freeSlot
	held map[int]bool
}

type freeSlot struct {
	n    int
	seen bool // by settle, which leaves it alone the first time
	sure bool // found to be open nowhere since its release
}

func openSlots(dir string) (*slots, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("output directory: %w", err)
	}
	return &slots{dir: dir, held: make(map[int]bool)}, nil
}

// path returns the name of a slot's file, kind "out" or "err".
func (s *slots) path(n int, kind string) string {
	return s.dir + "/" + strconv.Itoa(n) + "." + kind
}

// adopt takes over the files that an earlier runner left in the directory. Those
// of the numbers in keep belong to runs.
func (s *slots) adopt(keep map[int]bool) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".")
		n, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		s.last = max(s.last, n)
		if !keep[n] {
			s.held[n] = true
		}
	}
	s.settle()
	return nil
}

// take returns a slot with empty files that nobody else has open.
func (s *slots) take() (slot, error) {
	for range min(takeTries, len(s.free)) {
		f := s.free[0]
		s.free = s.free[1:]
		sl, err := s.open(f.n, unix.O_CREAT)
		if err == nil {
			if err = truncate(sl); err == nil {
				return sl, nil
			}
			sl.close()
		}
		if !errors.Is(err, errHeld) {
			s.held[f.n] = true
			return slot{}, fmt.Errorf("preparing output files: %w", err)
		}
		s.free = append(s.free, f)
	}
	s.last++
	sl, err := s.open(s.last, unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		s.remove(s.last)
		return slot{}, fmt.Errorf("preparing output files: %w", err)
	}
	return sl, nil
}

// putBack returns a slot from take that no command was started with.
func (s *slots) putBack(sl slot) {
	sl.close()
	s.release(sl.n, false)
}

// release ends the use of a slot whose descriptors have been closed. What its
// files hold, where used, is gone after it.
func (s *slots) release(n int, used bool) {
	if used {
		s.clear(n)
	}
	if len(s.free) < maxFree {
		s.free = append(s.free, freeSlot{n: n})
	} else {
		s.held[n] = true
	}
}

// settle looks after the slots that are not in use: it finds those that are
// held, clears them, and removes them once they are not. One that was released
// a moment ago may seem held: every fork copies all descriptors, until execve
// closes them.
func (s *slots) settle() {
	kept := s.free[:0]
	for _, f := range s.free {
		if f.seen && !f.sure {
			sl, err := s.open(f.n, unix.O_CREAT)
			if err != nil {
				s.held[f.n] = true
				continue
			}
			sl.close()
			f.sure = true
		}
		f.seen = true
		kept = append(kept, f)
	}
	s.free = kept
	for n := range s.held {
		s.clear(n)
		if sl, err := s.open(n, unix.O_CREAT); err == nil {
			s.remove(n)
			sl.close()
			delete(s.held, n)
		}
	}
}

var errHeld = errors.New("held by another process")

// open opens both files of a slot. The error is errHeld where another process
// has one of them open.
func (s *slots) open(n int, flags int) (slot, error) {
	sl := slot{n: n, out: -1, err: -1}
	var err error
	if sl.out, err = s.openFile(n, "out", flags); err == nil {
		sl.err, err = s.openFile(n, "err", flags)
	}
	if err != nil {
		if sl.out >= 0 {
			unix.Close(sl.out)
		}
		return slot{}, err
	}
	return sl, nil
}

func (s *slots) openFile(n int, kind string, flags int) (int, error) {
	path := s.path(n, kind)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOFOLLOW|flags, 0o600)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if !claim(fd) {
		unix.Close(fd)
		return -1, errHeld
	}
	return fd, nil
}

func (sl slot) close() {
	unix.Close(sl.out)
	unix.Close(sl.err)
}

// truncate empties both files of a slot.
func truncate(sl slot) error {
	for _, fd := range []int{sl.out, sl.err} {
		if sizeOf(fd) > 0 {
			if err := unix.Ftruncate(fd, 0); err != nil {
				return os.NewSyscallError("ftruncate", err)
			}
		}
	}
	return nil
}

// clear truncates the files of a slot. A writer that still has one open goes on
// at its new end, as it appends.
func (s *slots) clear(n int) {
	for _, kind := range []string{"out", "err"} {
		path := s.path(n, kind)
		if fi, err := os.Lstat(path); err == nil && fi.Size() > 0 {
			_ = os.Truncate(path, 0) // the next user of the slot truncates it too
		}
	}
}

func (s *slots) remove(n int) {
	os.Remove(s.path(n, "out"))
	os.Remove(s.path(n, "err"))
}
