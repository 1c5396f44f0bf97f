package runner

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq/internal/proc"
)

const (
	sizesEvery   = 250 * time.Millisecond
	orphansEvery = 4  // times sizesEvery
	slotsEvery   = 20 // likewise
	// lateMax is how much may be written to a file after its command has ended.
	lateMax = 1 << 20
)

// keep looks after what nobody tells a runner: the growth of files, the end of
// orphans, room for the log, the loss of the directory.
func (s *server) keep(every time.Duration, lock *os.File, end func(error)) {
	t := time.NewTicker(every)
	defer t.Stop()
	for n := 1; ; n++ {
		select {
		case <-t.C:
		case <-s.closed:
			return
		}
		s.checkSizes()
		if n%orphansEvery == 0 {
			s.checkOrphans()
			s.mu.Lock()
			s.wrote(s.events.flush())
			s.mu.Unlock()
		}
		if n%slotsEvery == 0 {
			s.mu.Lock()
			s.slots.settle()
			s.cutLate()
			s.evicted = evicted(lock)
			idle := len(s.children) == 0 && s.forking == 0 && len(s.queue) == 0
			s.mu.Unlock()
			if s.evicted && idle {
				end(errEvicted)
				return
			}
		}
	}
}

// checkSizes trims the output of the commands that run.
func (s *server) checkSizes() {
	s.mu.Lock()
	runs := make([]*run, 0, len(s.children))
	for _, r := range s.children {
		runs = append(runs, r)
	}
	s.mu.Unlock()
	for _, r := range runs {
		r.files.Lock()
		if r.out >= 0 {
			s.limit(r, sizeOf(r.out), sizeOf(r.err))
		}
		r.files.Unlock()
	}
}

// finish trims the output of a command that has ended for the last time, closes
// the runner's descriptors and returns the sizes.
func (s *server) finish(r *run) (out, err int64) {
	r.files.Lock()
	defer r.files.Unlock()
	out, err = sizeOf(r.out), sizeOf(r.err)
	s.limit(r, out, err)
	unix.Close(r.out)
	unix.Close(r.err)
	r.out, r.err = -1, -1
	return out, err
}

// limit drops output of r where there is more than may be kept. The caller holds
// r.files.
func (s *server) limit(r *run, out, err int64) {
	s.mu.Lock()
	o, e := &r.ev.Out, &r.ev.Err
	trimOut, trimErr := trimmed(out, o.Dropped, r.max), trimmed(err, e.Dropped, r.max)
	newOut, newErr := trimOut > o.Dropped, trimErr > e.Dropped
	if newOut || newErr {
		// Told before it is done: a reader that has read from a file and then
		// asks what is dropped knows what it has read.
		o.Dropped, e.Dropped = trimOut, trimErr
		s.events.add(appendTrim(nil, r))
		s.wrote(s.events.flush())
	}
	s.mu.Unlock()
	if newOut {
		s.dropped(r, drop(o.Path, trimOut))
	}
	if newErr {
		s.dropped(r, drop(e.Path, trimErr))
	}
}

func (s *server) dropped(r *run, err error) {
	if err != nil {
		s.log.Error("cannot bound the output of a command", "job", r.ev.Job, "err", err)
	}
}

// checkOrphans bounds the output of orphans and notices their end.
func (s *server) checkOrphans() {
	s.mu.Lock()
	runs := make([]*run, 0, len(s.orphans))
	for r := range s.orphans {
		runs = append(runs, r)
	}
	s.mu.Unlock()
	for _, r := range runs {
		alive, err := proc.Alive(r.ev.PID, r.ev.Start)
		r.files.Lock()
		s.limit(r, sizeAt(r.ev.Out.Path), sizeAt(r.ev.Err.Path))
		r.files.Unlock()
		if err == nil && !alive {
			s.mu.Lock()
			delete(s.orphans, r)
			lose(r, "it was started by a runner that is gone, and ended unseen")
			s.record(r)
			s.unlock()
		}
	}
}

// lose makes r a run whose end was not seen.
func lose(r *run, reason string) {
	r.ev.Kind, r.ev.Reason, r.ev.At = Lost, reason, time.Now()
	r.ev.Out.Size, r.ev.Err.Size = sizeAt(r.ev.Out.Path), sizeAt(r.ev.Err.Path)
}

// cutLate takes away what was written after the end of commands whose output is
// still needed.
func (s *server) cutLate() {
	for _, p := range s.pools {
		for _, r := range p.runs {
			if !r.ev.Kind.Ended() {
				continue
			}
			for _, f := range []*File{&r.ev.Out, &r.ev.Err} {
				if sizeAt(f.Path) > f.Size+lateMax {
					_ = os.Truncate(f.Path, f.Size) // else the next time
				}
			}
		}
	}
}

func sizeOf(fd int) int64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Size
}

func sizeAt(path string) int64 {
	fi, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// output returns what a run has written so far.
func (s *server) output(k Key) (out, err File, e error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, e := s.find(k)
	if e != nil {
		return File{}, File{}, e
	}
	out, err = r.ev.Out, r.ev.Err
	if !r.ev.Kind.Ended() {
		out.Size, err.Size = sizeAt(out.Path), sizeAt(err.Path)
	}
	return out, err, nil
}
