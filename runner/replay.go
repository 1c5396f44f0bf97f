package runner

import (
	"time"

	"github.com/cbsd/cbsdmq/internal/proc"
)

// replay brings back what earlier runners in dir knew, and finds out what became
// of the commands that they left running.
func (s *server) replay(dir string) error {
	marks, err := readMarks(dir)
	if err != nil {
		return err
	}
	for uuid, k := range marks {
		s.pool(uuid).mark = k
	}
	boot, garbage := "", 0
	slots := make(map[int]*run)
	err = readLines(s.events.path, func(line string) {
		if line == "" {
			return // what was in front of it was cut short
		}
		rec, err := parseRecord(line)
		if err != nil {
			garbage++
			return
		}
		switch rec.op {
		case recBegin:
			boot = rec.boot
			return
		case recMark:
			return
		}
		p := s.pool(rec.key.Pool)
		if rec.op == recAccept {
			r := s.revive(&rec)
			if old := slots[r.slot]; old != nil {
				// A slot is given away only after the acknowledgement.
				delete(s.pools[old.ev.Pool].runs, old.ev.Key)
			}
			slots[r.slot] = r
			p.runs[rec.key] = r
			return
		}
		r := p.runs[rec.key]
		switch {
		case r == nil:
		case rec.op == recAck:
			delete(p.runs, rec.key)
			delete(slots, r.slot)
		default:
			rec.apply(r)
		}
	})
	if err != nil {
		return err
	}
	if garbage > 0 {
		s.log.Warn("skipped lines of the log that cannot be read", "lines", garbage)
	}
	keep := make(map[int]bool)
	for _, p := range s.pools {
		for _, r := range p.runs {
			s.count++
			keep[r.slot] = true
			s.trace(r, boot == s.boot)
		}
	}
	return s.slots.adopt(keep)
}

// revive makes the run of an I line.
func (s *server) revive(rec *record) *run {
	n := int(rec.nums[1])
	return &run{
		ev: Event{
			Key: rec.key, Kind: Accepted, Job: rec.text, At: time.Unix(0, rec.nums[0]),
			Out: File{Path: s.slots.path(n, "out")},
			Err: File{Path: s.slots.path(n, "err")},
		},
		slot: n, max: rec.nums[2],
		out: -1, err: -1,
	}
}

// trace finds out what became of a run that another runner began.
func (s *server) trace(r *run, sameBoot bool) {
	if r.ev.Kind.Ended() {
		return
	}
	if !sameBoot {
		lose(r, "the machine was restarted")
		return
	}
	if r.ev.PID == 0 || r.ev.Start == 0 {
		r.ev.PID, r.ev.Start = leader(r.ev.Job)
	}
	if r.ev.PID == 0 {
		lose(r, "the runner ended before it could say whether the command was started; no process of it is left")
		return
	}
	// Where that cannot be known it is taken for alive, and looked at again.
	if alive, err := proc.Alive(r.ev.PID, r.ev.Start); err == nil && !alive {
		lose(r, "it was started by a runner that is gone, and ended unseen")
		return
	}
	r.ev.Kind = Orphan
	s.orphans[r] = true
}

// leader returns the process that was started for job: the one that leads the
// session which every command gets.
func leader(job string) (pid int, start ProcStart) {
	pids, err := proc.FindEnv(JobVariable, job)
	if err != nil || len(pids) == 0 {
		return 0, 0
	}
	list, err := proc.List()
	if err != nil {
		return 0, 0
	}
	found := make(map[int]bool)
	for _, p := range pids {
		found[p] = true
	}
	for _, p := range list {
		if found[p.PID] && p.SID == p.PID && (pid == 0 || p.Start < start) {
			pid, start = p.PID, p.Start
		}
	}
	return pid, start
}
