package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

// adopt brings the journal's open jobs into the loop and connects to the
// runner. It returns what the runner knows of them.
func (s *Server) adopt(ctx context.Context, l *loop) (knowledge, error) {
	r, snap, err := s.dial(ctx)
	if err != nil {
		return snap, err
	}
	s.runner.swap(r)
	if err := s.cfg.Journal.CheckMark(ctx, snap.Mark.N); err != nil {
		return snap, err
	}
	if err := s.loadPauses(ctx); err != nil {
		return snap, err
	}
	rows, err := s.cfg.Journal.Reader().Open(ctx)
	if err != nil {
		return snap, err
	}
	if err := s.countCrashes(rows); err != nil {
		return snap, err
	}
	// A begun job has its lanes, whatever was accepted before it.
	slices.SortStableFunc(rows, func(a, b *journal.Job) int {
		switch {
		case a.Begun.IsZero() == b.Begun.IsZero():
			return 0
		case b.Begun.IsZero():
			return -1
		}
		return 1
	})
	for _, row := range rows {
		j := &job{row: row, phase: queued}
		if err := json.Unmarshal(row.Plan, &j.plan); err != nil {
			return snap, fmt.Errorf("job %s: reading its plan from the journal: %w", row.ID, err)
		}
		j.lanes = j.plan.Lanes
		owes, err := s.cfg.Journal.Reader().Addresses(ctx, row.Seq)
		if err != nil {
			return snap, err
		}
		for _, o := range owes {
			if o.State == journal.Owed {
				j.addrs = append(j.addrs, o.Address)
			}
		}
		l.add(j)
		l.jobs[row.Seq], l.byID[row.ID] = j, j
		if row.Begun.IsZero() {
			if j.waits == 0 {
				l.makeReady(j)
			}
			if row.Flags&journal.HandingBack != 0 { // it may have run, whatever else is known of it
				l.endQueued(j, cbsdmq.Unknown, cbsdmq.ExitUnknown, handBackDoubt, handBackHint)
			} else if err := s.revoked(j); err != nil {
				l.withdraw(j, err)
			} else if row.Flags&journal.Poison != 0 {
				l.endQueued(j, cbsdmq.Unknown, cbsdmq.ExitUnknown, "the agent crashed twice on it; its command was not started", poisonHint)
			} else if row.Flags&journal.Cancelled != 0 {
				l.cancelUnbegun(j)
			}
			continue
		}
		j.phase = begun
		j.key = runner.Key{Pool: s.pool, Epoch: row.Epoch, N: row.N}
		j.slot = true
		l.free[j.plan.Class]--
		if row.Flags&journal.Cancelled != 0 {
			j.why = cbsdmq.Cancelled
		}
		_ = json.Unmarshal(row.Before, &j.before) // none for a read
		s.running.Add(1)
	}
	owed, err := s.cfg.Journal.Reader().Owed(ctx)
	if err != nil {
		return snap, err
	}
	for _, o := range owed {
		s.owe(o.Seq, []journal.Address{o.Address}, nil)
	}
	return snap, nil
}

// knowledge is what a runner knows of the pool.
type knowledge struct {
	runner.Snapshot
	// complete: it knows every start that it was sent since the machine was
	// started.
	complete bool
}

func (s *Server) dial(ctx context.Context) (Runner, knowledge, error) {
	var k knowledge
	r, err := s.cfg.Dial(ctx)
	if err != nil {
		return nil, k, err
	}
	if k.Snapshot, err = r.List(ctx, s.pool); err == nil {
		k.complete, err = s.marked()
	}
	if err != nil {
		r.Close()
		return nil, k, err
	}
	return r, k, nil
}

// marked reports whether this pool's mark was in the runner's directory, and
// puts it there.
func (s *Server) marked() (bool, error) {
	f, err := os.OpenFile(filepath.Join(s.cfg.RunDir, "served-"+s.pool), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("marking the runner's directory: %w", err)
	}
	return false, f.Close()
}

const (
	runnerRestart = 2 * time.Second  // a runner may be away for so long that is only restarted
	runnerSteady  = 10 * time.Second // a connection that lasted so long is replaced at once
)

// followRunner passes on what the runner says, and finds or starts another when
// the connection is lost.
func (s *Server) followRunner(ctx context.Context, snap knowledge) {
	for attempt := 0; ; {
		current, knows, since := s.runner.get(), snap, time.Now()
		s.post(ctx, func(l *loop) { l.reconcile(current, knows) })
		err := s.followEvents(ctx, current)
		if ctx.Err() != nil {
			return
		}
		s.post(ctx, func(l *loop) { l.runnerUp = false })
		s.runner.lose(err)
		s.log.Warn("lost the runner", "err", err)
		lost, said := time.Now(), false
		if lost.Sub(since) > runnerSteady {
			attempt = 0
		}
		for {
			if attempt > 0 && !sleep(ctx, pause(attempt)) {
				return
			}
			attempt++
			var r Runner
			if r, snap, err = s.dial(ctx); err == nil {
				s.runner.swap(r)
				s.log.Info("connected to the runner", "runner", snap.RunnerID)
				break
			}
			s.runner.lose(err)
			if !said && time.Since(lost) > runnerRestart {
				said = true
				s.log.Error("cannot reach or start a runner, nothing is begun", "err", err, "hint", cbsdmq.HintOf(err))
			}
		}
	}
}

func (s *Server) followEvents(ctx context.Context, r Runner) error {
	for {
		events, err := r.Next(ctx)
		if err != nil {
			return err
		}
		if !s.post(ctx, func(l *loop) {
			for _, e := range events {
				l.event(e)
			}
		}) {
			return ctx.Err()
		}
	}
}

// reconcile compares the begun jobs with what a runner knows. A begin above the
// runner's mark never reached it and is started now; at or below it and unknown
// to it, the command may have run. The runner does not sync what it writes, so
// for begins of before the machine was started its mark proves nothing.
func (l *loop) reconcile(r Runner, snap knowledge) {
	l.runner, l.runnerUp = r, true
	l.starting = nil
	runs := make(map[runner.Key]runner.Event, len(snap.Runs))
	for _, e := range snap.Runs {
		runs[e.Key] = e
	}
	var open []*job
	for _, j := range l.jobs {
		if j.phase == begun {
			open = append(open, j)
		}
	}
	slices.SortFunc(open, func(a, b *job) int { return int(a.row.Seq - b.row.Seq) })
	slices.SortStableFunc(open, func(a, b *job) int {
		switch {
		case a.key == b.key:
			return 0
		case b.key.After(a.key):
			return -1
		}
		return 1
	})
	var again []*job
	for _, j := range open {
		e, known := runs[j.key]
		delete(runs, j.key)
		switch {
		case known:
			l.event(e)
		case j.key.After(snap.Mark) && snap.complete && j.row.Boot == l.s.cfg.Boot:
			l.s.running.Add(-1)
			if j.why == cbsdmq.Cancelled {
				l.cancelUnbegun(j)
				continue
			}
			if j.expired(time.Now()) {
				l.expire(j)
				continue
			}
			if l.isPaused(j) { // its start was not sent before it was
				l.takeBack(j)
				continue
			}
			if err := l.s.revoked(j); err != nil {
				l.withdraw(j, err)
				continue
			}
			again = append(again, j)
		default:
			e = runner.Event{Key: j.key, Kind: runner.Lost, Reason: "the runner does not know the command"}
			l.s.watchLost(j, e)
		}
	}
	if l.batch.Empty() {
		l.start(again)
	} else {
		l.starting = again // behind what is to be written of lower numbers
	}
	// Ended runs whose end is in the journal: the acknowledgement was lost.
	var stale []runner.Key
	for key, e := range runs {
		if e.Kind.Ended() && l.byKey(key) == nil {
			stale = append(stale, key)
		}
	}
	if len(stale) > 0 {
		_ = r.Ack(stale...)
	}
}

func (l *loop) byKey(key runner.Key) *job {
	for _, j := range l.jobs {
		if j.key == key && j.phase >= begun {
			return j
		}
	}
	return nil
}

// event takes in what the runner says about a run.
func (l *loop) event(e runner.Event) {
	j := l.s.live.job(e.Key)
	if j == nil {
		if j = l.byKey(e.Key); j == nil {
			return // of an earlier Server, and answered
		}
	}
	if j.phase != begun {
		return
	}
	switch e.Kind {
	case runner.Accepted:
	case runner.Started:
		l.started(j, e)
		if j.row.Flags&journal.Stream != 0 {
			l.stream(j)
		}
		if j.why == cbsdmq.Cancelled && j.termAt.IsZero() {
			l.terminate(j, cbsdmq.Cancelled)
		}
	case runner.Exited, runner.Failed:
		l.s.live.started(j, e)
		l.conclude(j, e)
	case runner.Orphan:
		l.started(j, e)
		l.s.log.Warn("the runner was lost while a command ran: its guest waits until it is gone",
			"job", j.printedID(l.s.cfg.Pool), "pid", e.PID)
	case runner.Lost:
		l.s.watchLost(j, e)
	case runner.Refused:
		l.refusedStart(j, e)
	}
}

// started notes that the command of j runs.
func (l *loop) started(j *job, e runner.Event) {
	l.s.live.started(j, e)
	if e.At.After(j.row.Begun) {
		j.row.Begun = e.At // time_limit is counted from here
	}
}

// refusedStart handles a start that the runner did not take. Nothing was begun,
// and the journal is to know it: the next agent could not tell, once a higher
// number was begun. So the runner takes none until commit acknowledges the refusal.
func (l *loop) refusedStart(j *job, e runner.Event) {
	if e.Temporary {
		l.s.log.Warn("the runner cannot start commands now", "job", j.printedID(l.s.cfg.Pool), "reason", e.Reason)
		l.s.running.Add(-1)
		l.takeBack(j)
		j.again = time.Now().Add(foreignRetry)
		l.refused = append(l.refused, e.Key)
		if j.why == cbsdmq.Cancelled {
			l.cancelUnbegun(j)
		}
		return
	}
	// The number is not above the mark: the same begin may have reached the
	// runner before.
	l.s.watchLost(j, runner.Event{Key: j.key, Kind: runner.Lost, Reason: e.Reason})
}

// ackRefused tells the runner that the journal knows which starts it refused.
func (l *loop) ackRefused() {
	if r := l.s.runner.get(); r != nil && len(l.refused) > 0 {
		_ = r.Ack(l.refused...)
	}
	l.refused = nil
}

// takeBack makes a job wait again whose begin is in the journal and came to
// nothing.
func (l *loop) takeBack(j *job) {
	l.giveSlot(j)
	j.phase, j.key = queued, runner.Key{}
	j.row.Epoch, j.row.N, j.row.Begun, j.row.Boot = 0, 0, time.Time{}, ""
	l.batch.Unbegin = append(l.batch.Unbegin, j.row.Seq)
}

// watchLost ends a job whose command was lost sight of. A read is run again,
// unless nobody wants it any more. A change ends as unknown, but not before every
// process of it is gone: until then its guest is not free.
func (s *Server) watchLost(j *job, e runner.Event) {
	printed := j.printedID(s.cfg.Pool)
	boot, class := j.row.Boot, j.plan.Class
	j.phase = concluding
	go func() {
		for attempt := 0; boot == s.cfg.Boot && s.stillRuns(e, printed); attempt++ {
			if attempt == 0 {
				s.log.Warn("waiting for a command that was lost sight of", "job", printed, "pid", e.PID)
			}
			if !sleep(s.life, tick) {
				return
			}
		}
		s.post(s.life, func(l *loop) {
			j.phase = begun
			if class == cbsd.Read && j.why != cbsdmq.Cancelled {
				l.s.running.Add(-1)
				l.s.live.gone(j)
				l.ackRun(e.Key)
				j.why, j.termAt, j.killAt = "", time.Time{}, time.Time{}
				j.row.Flags |= journal.Again
				l.begin(j)
				return
			}
			l.conclude(j, e)
		})
	}()
}

func (l *loop) ackRun(key runner.Key) {
	if r := l.s.runner.get(); r != nil {
		_ = r.Ack(key)
	}
}
