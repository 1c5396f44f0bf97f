package agent

import (
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/internal/proc"
	"github.com/cbsd/cbsdmq/runner"
)

// liveOutputs are the commands that run now, for those who ask from outside
// the loop: who reads output, and who looks for foreign commands.
type liveOutputs struct {
	mu   sync.Mutex
	keys map[runner.Key]*job
	runs map[string]liveRun // by job id
	pids map[int]bool
}

// A liveRun is where the output of a running command can be read.
type liveRun struct {
	key   runner.Key
	out   string
	err   string // of its stderr
	pid   int
	plan  cbsd.Plan
	began time.Time

	measure *measure
}

// size is how much has been written so far.
func (r liveRun) size() int64 {
	fi, err := os.Stat(r.out)
	if err != nil {
		return 0
	}
	return fi.Size()
}

func (v *liveOutputs) started(j *job, e runner.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.keys == nil {
		v.keys, v.runs, v.pids = make(map[runner.Key]*job), make(map[string]liveRun), make(map[int]bool)
	}
	v.keys[e.Key] = j
	r := liveRun{key: e.Key, out: e.Out.Path, err: e.Err.Path, pid: e.PID, plan: j.plan, began: j.row.Begun}
	if r.measure = v.runs[j.row.ID].measure; r.measure == nil {
		r.measure = new(measure)
	}
	v.runs[j.row.ID] = r
	if e.PID > 0 {
		v.pids[e.PID] = true
	}
}

// gone forgets j. Its output file may belong to another job from now on, so a
// reader asks again after it has read.
func (v *liveOutputs) gone(j *job) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r := v.runs[j.row.ID]
	delete(v.pids, r.pid)
	delete(v.keys, r.key)
	delete(v.runs, j.row.ID)
}

func (v *liveOutputs) job(key runner.Key) *job {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.keys[key]
}

func (v *liveOutputs) run(id string) (liveRun, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r, ok := v.runs[id]
	return r, ok
}

// owns reports whether pid is a command of ours that runs now.
func (v *liveOutputs) owns(pid int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pids[pid]
}

// read reads stdout of the running job id from offset on. ok is false where it
// does not run any more: then the journal has its output.
func (v *liveOutputs) read(id string, p []byte, offset int64) (n int, ok bool) {
	r, ok := v.run(id)
	if !ok {
		return 0, false
	}
	if f, err := os.Open(r.out); err == nil {
		n, _ = f.ReadAt(p, offset) // at the end there is nothing yet
		f.Close()
	}
	again, ok := v.run(id)
	return n, ok && again.key == r.key && again.out == r.out
}

// stillRuns reports whether anything of a command lives that its runner lost:
// the command itself, or what it started in its session. A daemon that it left
// behind, such as a VM, has a session of its own and does not count. Where that
// cannot be found out it may: its guest must not be let go too early.
func (s *Server) stillRuns(e runner.Event, printedID string) bool {
	if e.PID > 0 {
		if alive, err := proc.Alive(e.PID, e.Start); err == nil && alive {
			return true
		}
	}
	pids, err := proc.FindEnv(runner.JobVariable, printedID)
	if err != nil {
		return true
	}
	if e.PID > 0 {
		return slices.ContainsFunc(pids, func(pid int) bool {
			sid, err := unix.Getsid(pid)
			return err == nil && sid == e.PID
		})
	}
	// It is not known whether it was started at all. What CBSD's command runs
	// names it; a daemon is called otherwise.
	all, err := proc.List()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(all, func(p proc.Process) bool {
		return slices.Contains(pids, p.PID) && strings.Contains(strings.Join(p.Args, " "), s.cfg.Command)
	})
}
