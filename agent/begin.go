package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/internal/crash"
	"github.com/cbsd/cbsdmq/internal/failpoint"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

// foreignRetry is how often a guest is looked at that somebody else works on.
const foreignRetry = time.Second

// dispatch gives free workers to jobs whose lanes are free.
func (l *loop) dispatch() {
	if l.bad {
		if l.full {
			l.dispatchFreeing()
		}
		return
	}
	for class, q := range l.ready {
		for len(q) > 0 && l.takeSlot(q[0]) {
			j := q[0]
			q = q[1:]
			j.ready = false
			switch {
			case j.arrival == nil && j.expired(time.Now()):
				l.expire(j)
			case class == cbsd.Read:
				l.begin(j)
			default:
				j.phase = preparing
				l.prepare(j)
			}
		}
		l.ready[class] = q
	}
}

// dispatchFreeing is dispatch for those changes that make room on a full disk.
func (l *loop) dispatchFreeing() {
	for _, j := range slices.Clone(l.ready[cbsd.Change]) {
		if j.plan.FreesRoom() && l.takeSlot(j) {
			l.unready(j)
			j.phase = preparing
			l.prepare(j)
		}
	}
}

// A look is what was seen before a change.
type look struct {
	before cbsd.Snapshot
	busy   *cbsd.Busy // somebody else's command
	fit    bool       // CBSD does what it is told
	misfit error      // the command is not for this guest
}

// prepare reads what must be known before a change, and looks for other
// people's commands on the guest. Nothing else of ours can touch the guest
// meanwhile: the job is at the head of its lanes.
func (l *loop) prepare(j *job) {
	s, plan := l.s, j.plan
	crash.Go(j.printedID(s.cfg.Pool), func() {
		failpoint.Hit(failpoint.Looking)
		seen := look{fit: true}
		err := s.guard(func() error {
			ctx := context.Background() // package cbsd bounds what it asks
			if seen.fit = s.isFit(ctx); !seen.fit {
				return nil
			}
			if b, is := s.cfg.CBSD.Foreign(ctx, plan.Lanes, s.live.owns); is {
				seen.busy = &b
				return nil
			}
			var err error
			seen.before, err = s.cfg.CBSD.Before(ctx, plan)
			seen.misfit = cbsd.Misfit(plan, seen.before)
			return err
		})
		if err != nil {
			s.log.Warn("cannot read the state before a change", "command", plan.Command, "guest", plan.Guest, "err", err)
		}
		s.post(s.life, func(l *loop) { l.prepared(j, seen) })
	})
}

// prepared goes on with a job whose guest was looked at.
func (l *loop) prepared(j *job, seen look) {
	if j.phase != preparing {
		return // it was cancelled meanwhile
	}
	now := time.Now()
	expired := j.expired(now)
	if seen.busy == nil && seen.fit && seen.misfit == nil && !expired && l.runnerUp && !l.s.drain.Load() && !l.isPaused(j) {
		j.before = seen.before
		l.begin(j)
		return
	}
	l.giveSlot(j)
	j.phase = queued
	switch {
	case expired && j.arrival == nil:
		l.expire(j)
		return
	case l.isPaused(j): // made ready when that ends
	case !seen.fit:
		j.again = now.Add(unfitRetry)
	case seen.busy != nil:
		busy := seen.busy
		if j.busySince.IsZero() {
			j.busySince = now
			l.s.log.Info("waits for a command that is not ours", "job", j.printedID(l.s.cfg.Pool), "guest", busy.Guest, "pid", busy.PID, "command", busy.Command)
		}
		if now.Sub(j.busySince) >= l.s.cfg.ForeignWait && j.arrival == nil {
			l.endQueued(j, cbsdmq.Refused, cbsdmq.ExitRefused, busyReason(busy), "wait for it to end, then submit again")
			return
		}
		j.again = now.Add(foreignRetry)
	case seen.misfit != nil:
		j.misfit = seen.misfit
		if j.arrival == nil {
			l.endMisfit(j)
			return
		}
	default:
		l.makeReady(j)
	}
	if j.arrival != nil {
		l.enlist(j)
	}
}

// endMisfit ends a job whose command is not for its guest.
func (l *loop) endMisfit(j *job) {
	l.endQueued(j, cbsdmq.Refused, cbsdmq.ExitRefused, j.misfit.Error(), cbsdmq.HintOf(j.misfit))
}

// unfitRetry is how often a change is tried that a broken CBSD keeps waiting.
const unfitRetry = 5 * time.Second

// isFit reports whether changes may begin with the CBSD that is installed now,
// and logs when that changes.
func (s *Server) isFit(ctx context.Context) bool {
	if s.cfg.Fit == nil {
		return true
	}
	why := s.cfg.Fit(ctx)
	was := s.unfit.Swap(&why)
	switch {
	case why != "" && (was == nil || *was == ""):
		s.log.Error("no change begins, reads go on", "reason", why, "hint", "install another version of CBSD: jobs wait and go on by themselves")
	case why == "" && was != nil && *was != "":
		s.log.Info("changes begin again: CBSD does what it is told")
	}
	return why == ""
}

func busyReason(b *cbsd.Busy) string {
	tty := b.TTY
	if tty == "" {
		tty = "no tty"
	}
	return fmt.Sprintf("busy: %s (pid %d, %s, %s)", b.Command, b.PID, tty, b.User)
}

// begin puts the begin of j into the next commit. It holds a worker.
func (l *loop) begin(j *job) {
	var before []byte
	if j.plan.Class == cbsd.Change {
		// A Snapshot is plain data: it always has a JSON form.
		before, _ = json.Marshal(j.before)
	}
	j.phase = beginning
	l.batch.Urgent = l.batch.Urgent || j.plan.FreesRoom()
	if j.arrival != nil {
		j.arrival.accept.Begin, j.row.Before = true, before
		l.enlist(j)
		return
	}
	if j.row.Flags&journal.Again != 0 {
		l.batch.Mark = append(l.batch.Mark, journal.Mark{Seq: j.row.Seq, Flags: journal.Again})
	}
	l.batch.Begin = append(l.batch.Begin, &journal.Begin{Seq: j.row.Seq, Before: before})
	l.begins = append(l.begins, j)
}

// unbegin makes j wait again, where its begin could not be written.
func (l *loop) unbegin(j *job) {
	l.giveSlot(j)
	j.phase = queued
	l.makeReady(j)
}

// start hands begun jobs to the runner, in the order of their numbers.
func (l *loop) start(js []*job) {
	if len(js) == 0 {
		return
	}
	starts := make([]runner.Start, len(js))
	for i, j := range js {
		j.phase = begun
		j.key = runner.Key{Pool: l.s.pool, Epoch: j.row.Epoch, N: j.row.N}
		l.s.running.Add(1)
		starts[i] = l.s.startOf(j)
	}
	failpoint.Hit(failpoint.Starting)
	if l.runner == nil {
		return // followRunner starts what the next runner has not seen
	}
	if err := l.runner.Start(starts...); err != nil {
		l.runnerUp = false // followRunner sees it too, and says so
	}
	failpoint.Hit(failpoint.Started)
}

func (s *Server) startOf(j *job) runner.Start {
	id := j.printedID(s.cfg.Pool)
	path, args := s.cfg.Command, j.plan.Argv
	if j.plan.Own {
		path, args = s.cfg.Self, append([]string{"tool", "--cbsd", s.cfg.Command}, args...)
	}
	return runner.Start{
		Key: j.key, Job: id, Path: path, Args: args,
		Env: s.cfg.CBSD.Env(id, j.plan), Dir: s.cfg.CBSD.Dir(), OutputMax: s.cfg.OutputMax,
	}
}
