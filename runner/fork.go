package runner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq/internal/calm"
	"github.com/cbsd/cbsdmq/internal/failpoint"
	"github.com/cbsd/cbsdmq/internal/proc"
)

// startWorkers is how many forks are under way at once. Two keep two cores
// busy; more than four gain nothing.
const startWorkers = 4

// work forks what is queued.
func (s *server) work() {
	for {
		select {
		case r := <-s.queue:
			s.begin(r)
		case <-s.closed:
			return
		}
	}
}

// begin forks one run and records what became of it.
func (s *server) begin(r *run) {
	s.mu.Lock()
	s.forking++
	s.mu.Unlock()

	pid, err := s.fork(r)
	failpoint.Hit(failpoint.RunnerForked)
	var reason string
	if err != nil {
		reason = failure(r.start, err)
	}

	s.mu.Lock()
	defer s.unlock()
	s.forking--
	r.ev.At = time.Now()
	if err == nil {
		r.ev.PID = pid
		s.children[pid] = r
		s.young = append(s.young, r)
		select {
		case s.born <- struct{}{}:
		default:
		}
		if r.kill != 0 {
			syscall.Kill(-pid, r.kill)
		}
	} else {
		r.ev.Kind, r.ev.Reason = Failed, reason
		errors.As(err, &r.ev.Errno)
		unix.Close(r.out)
		unix.Close(r.err)
		r.out, r.err = -1, -1
		s.record(r)
	}
	r.start = nil
	s.forked.Broadcast()
}

// youngFor is how long a command runs before its identity is read, logged and
// told. For one that has ended by then nobody needs it, and it is a fair part of
// the work for a command. Until then it can be found by its environment.
const youngFor = 10 * time.Millisecond

// introduceAll introduces commands that have run for youngFor.
func (s *server) introduceAll() {
	for {
		select {
		case <-s.born:
		case <-s.closed:
			return
		}
		time.Sleep(youngFor)
		s.mu.Lock()
		s.introduce()
		s.unlock()
	}
}

// introduce makes those of young that still run Started.
func (s *server) introduce() {
	var started []*run
	for i, r := range s.young {
		s.young[i] = nil
		if s.children[r.ev.PID] != r {
			continue
		}
		// It is there, as a zombie at least, until it is taken out of s.children.
		// Where no descriptor is free its start time remains zero, which is never a
		// process's: it will be found by its environment.
		r.ev.Start, _ = proc.StartTime(r.ev.PID)
		r.ev.Kind = Started
		started = append(started, r)
	}
	s.young = s.young[:0]
	s.record(started...)
}

// fork starts the command of r.
func (s *server) fork(r *run) (pid int, err error) {
	st := r.start
	env := make([]string, 0, len(st.Env)+1)
	for _, v := range st.Env {
		if !strings.HasPrefix(v, JobVariable+"=") {
			env = append(env, v)
		}
	}
	calm.Exact(func() {
		pid, err = syscall.ForkExec(st.Path, append([]string{st.Path}, st.Args...), &syscall.ProcAttr{
			Dir:   dirOf(st),
			Env:   append(env, JobVariable+"="+st.Job),
			Files: []uintptr{uintptr(s.null), uintptr(r.out), uintptr(r.err)},
			Sys:   &syscall.SysProcAttr{Setsid: true},
		})
	})
	return pid, err
}

func dirOf(st *Start) string {
	if st.Dir == "" {
		return "/"
	}
	return st.Dir
}

// failure says why a command could not be started. ForkExec does not tell
// whether the directory, the program or its interpreter was the cause.
func failure(st *Start, err error) string {
	if fi, derr := os.Stat(dirOf(st)); derr != nil || !fi.IsDir() {
		return fmt.Sprintf("changing to directory %s: %v", dirOf(st), err)
	}
	if errors.Is(err, syscall.ENOENT) {
		path := st.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dirOf(st), path)
		}
		if _, perr := os.Stat(path); perr == nil {
			return fmt.Sprintf("executing %s: its interpreter is missing: %v", st.Path, err)
		}
	}
	return fmt.Sprintf("executing %s: %v", st.Path, err)
}

// endsMax is how many ends are told at once.
const endsMax = 32

// reap waits for the children in s.children, and for no others. Ends that come
// together are logged and told together.
func (s *server) reap() {
	const strangers = 10 * time.Millisecond
	var ended []*run
	for missing := 0; ; {
		pid, err := waitAny(len(ended) == 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if len(ended) > 0 && (pid == 0 || len(ended) == endsMax) {
			s.tell(ended)
			ended = ended[:0]
			continue
		}
		s.mu.Lock()
		if err != nil {
			for len(s.children) == 0 {
				s.forked.Wait()
				missing = 0
			}
			s.mu.Unlock()
			if missing++; missing > 1 {
				s.log.Error("cannot wait for commands", "err", err)
				time.Sleep(time.Second)
			}
			continue
		}
		missing = 0
		r, forking := s.children[pid], s.forking > 0
		s.mu.Unlock()
		switch {
		case r != nil:
			s.end(pid, r)
			ended = append(ended, r)
		case len(ended) > 0:
			s.tell(ended)
			ended = ended[:0]
		case forking:
			// It ended before begin got to know its pid, or execve failed and
			// ForkExec is waiting for it.
			s.mu.Lock()
			if s.forking > 0 && s.children[pid] == nil {
				s.forked.Wait()
			}
			s.mu.Unlock()
		default:
			time.Sleep(strangers) // it is somebody else's to wait for
		}
	}
}

// end takes note of the end of a child that is a zombie.
func (s *server) end(pid int, r *run) {
	// What the direct child has written is in the files now. What others write
	// later, whom it left behind, is not its output any more.
	out, errs := s.finish(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	delete(s.children, pid)
	failpoint.Hit(failpoint.RunnerReaped)
	r.ev.Kind, r.ev.At = Exited, time.Now()
	r.ev.Out.Size, r.ev.Err.Size = out, errs
	if status.Signaled() {
		r.ev.Signal = status.Signal()
	} else {
		r.ev.Status = status.ExitStatus()
	}
}

// tell records the last event of runs.
func (s *server) tell(runs []*run) {
	s.mu.Lock()
	defer s.unlock()
	s.record(runs...)
}
