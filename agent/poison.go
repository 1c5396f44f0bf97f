package agent

import (
	"fmt"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

const poisonHint = "look at the guest before you submit it again; the state_dir of the agent has crash reports: please report them"

// countCrashes notes in the journal on which of the open jobs the agent before
// this one crashed. A job on which two crashed is not handled a third time.
//
// One that was not in the journal yet, or not acknowledged, comes again from its
// broker: then it goes into the journal before anything else is done with it.
func (s *Server) countCrashes(open []*journal.Job) error {
	if s.cfg.Crashed == nil {
		return nil
	}
	s.suspects = make(map[string]bool)
	for _, id := range s.cfg.Crashed() {
		s.suspects[id] = true
	}
	var b journal.Batch
	for _, row := range open {
		id := cbsdmq.PrintedID(s.cfg.Pool, row.ID)
		if !s.suspects[id] || row.Flags&journal.Poison != 0 {
			continue
		}
		flag, said := journal.Crashed, "the agent crashed on a job, it is tried once more"
		if row.Flags&journal.Crashed != 0 {
			flag, said = journal.Poison, "the agent crashed on a job again, it is given up"
		}
		row.Flags |= flag
		b.Mark = append(b.Mark, journal.Mark{Seq: row.Seq, Flags: flag})
		s.log.Error(said, "job", id, "command", row.Command, "guest", row.Guest)
	}
	if b.Empty() {
		return nil
	}
	return s.cfg.Journal.Commit(&b)
}

// plan is the pool's Plan; a mistake of ours in it refuses the job.
func (s *Server) plan(job cbsdmq.Job) (plan cbsd.Plan, err error) {
	panicked := s.guard(func() error {
		plan, err = s.cfg.CBSD.Plan(job)
		return nil
	})
	if panicked != nil {
		s.log.Error("reading a job failed", "command", printable(job.Command), "err", panicked)
		return plan, cbsdmq.Errorf(cbsdmq.CodeRefused, "Command", "the agent cannot read this job").
			WithHint("please report it: the agent's log says more")
	}
	return plan, err
}

// poisoned is the end of a job whose command has ended, and on which the agent
// crashed twice.
func (s *Server) poisoned(row *journal.Job, e runner.Event) *ending {
	reason := "the agent crashed twice on its end; its output is not kept"
	if e.Kind == runner.Exited && e.Signal == 0 {
		reason = fmt.Sprintf("%s; its exit status was %d", reason, e.Status)
	}
	r := reply(cbsdmq.Unknown, cbsdmq.ExitUnknown, reason, poisonHint)
	return s.finish(row, r, nil, 0)
}
