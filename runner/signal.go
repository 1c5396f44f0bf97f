package runner

import (
	"errors"
	"slices"
	"syscall"

	"github.com/cbsd/cbsdmq/internal/proc"
)

// signal sends sig to the process group of a run.
func (s *server) signal(k Key, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := s.find(k)
	if err != nil {
		return err
	}
	e := &r.ev
	if e.PID == 0 && e.Kind == Accepted {
		r.kill, e.Signalled = sig, true
		return nil
	}
	switch e.Kind {
	case Accepted, Started: // not reaped before the lock is released, so the pid is its own
		e.Signalled = true
	case Orphan:
		alive, err := proc.Alive(e.PID, e.Start)
		if err != nil {
			return err
		}
		if !alive {
			return errNothingLeft
		}
	default:
		left, err := groupLeft(e.PID, e.Job)
		if err != nil {
			return err
		}
		if !left {
			return errNothingLeft
		}
	}
	return syscall.Kill(-e.PID, sig)
}

var errNothingLeft = errors.New("nothing of it is left")

// groupLeft reports whether the process group of a command that has ended has
// members yet that the command started. The group's number could be another's
// by now: the environment tells.
func groupLeft(pgid int, job string) (bool, error) {
	if pgid == 0 {
		return false, nil
	}
	list, err := proc.List()
	if err != nil {
		return false, err
	}
	want := JobVariable + "=" + job
	for _, p := range list {
		if p.PGID != pgid || p.Zombie {
			continue
		}
		if env, err := proc.Environ(p.PID); err == nil && slices.Contains(env, want) {
			return true, nil
		}
	}
	return false, nil
}
