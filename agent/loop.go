package agent

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/internal/failpoint"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

// A phase is where a job is in the loop.
type phase int

const (
	arriving   phase = iota // not yet in the journal
	queued                  // waits for its lane or for a worker
	preparing               // has both; the state before the change is being read
	beginning               // its begin is in the next commit
	begun                   // with the runner
	concluding              // ended; its result is being made, or waits for the commit
	ended                   // in the journal; may still hold its place for those behind it
)

// A job is a job in memory, from its delivery until its end is in the journal.
// It belongs to the loop.
type job struct {
	node
	row     *journal.Job
	plan    cbsd.Plan
	arrival *arrival
	listed  bool // its arrival is in the next commit
	phase   phase
	addrs   []journal.Address
	before  cbsd.Snapshot
	slot    bool // holds a worker
	ready   bool // is in loop.ready

	busySince time.Time // when a foreign command was first seen on the guest
	again     time.Time // not prepared before
	misfit    error     // why it is not for its guest

	key       runner.Key
	termAt    time.Time // when SIGTERM was sent
	killAt    time.Time // when SIGKILL is due
	why       cbsdmq.State
	looked    time.Time // when it was last looked at whether it moves
	streaming *streamer

	ended []func() // to call when its end is in the journal
}

func (j *job) printedID(pool string) string { return cbsdmq.PrintedID(pool, j.row.ID) }

// An arrival is one delivery on its way into the journal.
type arrival struct {
	accept *journal.Accept
	plan   cbsd.Plan
	done   func(error) // called once: nil when it may be acknowledged
	ended  func()      // called when the end of its job is in the journal; nil: it is not
	// lost reports whether its broker may have started anew since: then its
	// address may be somebody else's, and if the broker has it, it comes again.
	lost func() bool
}

// The loop owns the jobs. Only its goroutine touches it.
type loop struct {
	s       *Server
	jobs    map[int64]*job // by seq
	byID    map[string]*job
	byIdent map[string]*job
	lanes   lanes
	ready   map[cbsd.Class][]*job // wait for a worker only
	free    map[cbsd.Class]int    // workers

	batch     journal.Batch
	accepting []*job
	begins    []*job
	endings   []*ending
	after     []func()      // to do once the batch is written
	failed    []func(error) // to do if it cannot be
	starting  []*job        // begun, to be started after the next commit
	refused   []runner.Key  // starts that the next commit says were never begun
	lazy      []journal.SentReply
	lazySince time.Time
	runner    Runner // the last one that was asked what it knows: only it gets starts
	runnerUp  bool
	bad       bool // the last commit failed, or the journal is low
	full      bool // bad for want of room: what makes some goes on
}

func newLoop(s *Server) *loop {
	return &loop{
		s:       s,
		jobs:    make(map[int64]*job),
		byID:    make(map[string]*job),
		byIdent: make(map[string]*job),
		ready:   make(map[cbsd.Class][]*job),
		free:    map[cbsd.Class]int{cbsd.Change: s.cfg.Workers, cbsd.Read: s.cfg.Readers},
	}
}

const (
	tick     = time.Second
	maxBatch = 512
	lazyMax  = 256 // confirmed replies that wait for the next commit
)

// run is the loop: take what has happened, decide, write, act.
func (l *loop) run(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		ticked := false
		select {
		case f := <-l.s.inbox:
			f(l)
		case <-t.C:
			ticked = true
			if l.full {
				l.s.cfg.Journal.RestoreReserve()
			}
			l.tick(time.Now())
		case <-ctx.Done():
			l.rest()
			return
		}
		// A commit costs the same for one event as for many: let those who are
		// ready to tell one do so first.
		runtime.Gosched()
		for n := 1; n < maxBatch; n++ {
			select {
			case f := <-l.s.inbox:
				f(l)
				continue
			default:
			}
			break
		}
		// While the journal cannot be written it is tried once a tick.
		for !l.bad || ticked {
			l.dispatch()
			if !l.pending() {
				break
			}
			l.commit()
			ticked = false
		}
	}
}

// pending reports whether there is something to write, or to find out whether
// the journal can be written again.
func (l *loop) pending() bool { return !l.batch.Empty() || len(l.after) > 0 || l.bad }

// rest writes what has come to its end when the Server stops.
func (l *loop) rest() {
	for {
		select {
		case f := <-l.s.inbox:
			f(l)
			continue
		default:
		}
		break
	}
	if l.pending() || len(l.lazy) > 0 {
		l.commit()
	}
	if err := l.s.cfg.Journal.SaveMark(); err != nil {
		l.s.log.Warn("could not save how far the journal has come", "err", err)
	}
}

// commit writes the batch and lets its effects out. What cannot be written has
// not happened: deliveries go back, begins wait, ends are tried again.
func (l *loop) commit() {
	l.flushSent()
	l.giveBackLost()
	err := l.s.cfg.Journal.Commit(&l.batch)
	batch, accepting, begins, endings := l.batch, l.accepting, l.begins, l.endings
	after, failed := l.after, l.failed
	l.accepting, l.begins, l.endings, l.after, l.failed = nil, nil, nil, nil, nil
	l.batch = journal.Batch{}
	if err != nil {
		l.troubled(err)
		for _, j := range accepting {
			l.refuseArrival(j, err)
		}
		for _, j := range begins {
			l.unbegin(j)
		}
		l.endings = endings // tried again with the next commit
		for _, e := range endings {
			l.batch.Finish = append(l.batch.Finish, e.finish)
		}
		l.batch.Unbegin = batch.Unbegin
		l.lazy = batch.Sent
		for _, f := range slices.Backward(failed) { // what was done last is undone first
			f(err)
		}
		return
	}
	if len(accepting) > 0 {
		failpoint.Hit(failpoint.Accepted)
	}
	if len(endings) > 0 {
		failpoint.Hit(failpoint.Finished)
	}
	if l.s.cfg.Journal.Low() {
		l.troubled(errLow)
	} else {
		l.well()
	}
	starts := l.starting
	l.starting = nil
	for _, j := range accepting {
		if j.arrival.accept.Foreign {
			l.disown(j)
			continue
		}
		if l.accepted(j) {
			starts = append(starts, j)
		}
	}
	for i, j := range begins {
		g := batch.Begin[i]
		if g.N == 0 {
			l.s.log.Error("a job was not to be begun", "job", j.printedID(l.s.cfg.Pool), "state", j.row.State)
			l.forget(j)
			continue
		}
		j.row.Epoch, j.row.N, j.row.Begun, j.row.Boot = l.s.cfg.Journal.Meta().Epoch, g.N, time.Now(), l.s.cfg.Boot
		starts = append(starts, j)
	}
	l.ackRefused()
	l.start(starts)
	var acks []runner.Key
	for _, e := range endings {
		if e.key != (runner.Key{}) {
			acks = append(acks, e.key)
		}
		l.finished(e)
	}
	if r := l.s.runner.get(); r != nil && len(acks) > 0 {
		_ = r.Ack(acks...) // a lost connection is noticed by its reader; List shows the run again
	}
	for _, f := range after {
		f()
	}
}

// giveBackLost takes arrivals out of the batch that are of before an outage, and
// what came behind them: a sender's jobs keep their order.
func (l *loop) giveBackLost() {
	kept := l.accepting[:0:0]
	back := make(map[string]bool) // buses
	for _, j := range l.accepting {
		if back[j.row.Bus] || j.arrival.lost() {
			back[j.row.Bus] = true
			l.batch.Accept = slices.DeleteFunc(l.batch.Accept, func(a *journal.Accept) bool { return a == j.arrival.accept })
			l.refuseArrival(j, errNotNow)
			continue
		}
		kept = append(kept, j)
	}
	l.accepting = kept
}

var errLow = errors.New("the room that is left is kept for the ends of jobs and for commands that make room")

// troubled notes that the journal cannot be written. Nothing new is taken from
// the broker until it can, but for what makes room where that is the cause.
func (l *loop) troubled(err error) {
	why := err.Error()
	full := journal.Full(err) || errors.Is(err, errLow)
	if full {
		why = "the disk of the journal is full: " + why
	}
	if !l.bad {
		l.s.log.Error("cannot write the journal, taking no new jobs", "err", err,
			"hint", cmp.Or(cbsdmq.HintOf(err), "make room or mend the file system; the agent goes on by itself"))
	}
	l.bad, l.full = true, full
	l.s.trouble.Store(&why)
	l.s.full.Store(full)
}

func (l *loop) well() {
	if !l.bad {
		return
	}
	l.bad, l.full = false, false
	l.s.trouble.Store(nil)
	l.s.full.Store(false)
	l.s.log.Info("the journal can be written again")
	select {
	case l.s.healthy <- struct{}{}:
	default:
	}
}

// add takes a job in memory into account, and returns those that it waits for.
func (l *loop) add(j *job) (behind map[*node]bool) {
	j.node.job = j
	l.byIdent[j.row.Ident] = j
	behind = l.lanes.enter(&j.node)
	l.s.open.Add(1)
	if j.row.State == cbsdmq.Held {
		l.s.held.Add(1)
	}
	return behind
}

// forget drops a job from memory, and its place in the lanes once that is its
// turn.
func (l *loop) forget(j *job) {
	l.giveSlot(j)
	l.unready(j)
	j.phase = ended
	if l.byIdent[j.row.Ident] == j {
		delete(l.byIdent, j.row.Ident)
	}
	if l.byID[j.row.ID] == j {
		delete(l.byID, j.row.ID)
	}
	if l.jobs[j.row.Seq] == j {
		delete(l.jobs, j.row.Seq)
	}
	if _, name := makes(j.plan); name != "" && l.s.cfg.Made != nil {
		l.s.cfg.Made(name)
	}
	l.s.open.Add(-1)
	select {
	case l.s.room <- struct{}{}:
	default:
	}
	if j.waits == 0 {
		l.leave(&j.node)
	}
	l.checkIdle()
}

// leave frees the lanes behind n, and those behind jobs that have ended out of
// turn.
func (l *loop) leave(n *node) {
	for _, m := range l.lanes.leave(n) {
		if m.job.phase == ended {
			l.leave(m)
		} else {
			l.makeReady(m.job)
		}
	}
}

// makeReady queues a job that waits for a worker only, once.
func (l *loop) makeReady(j *job) {
	if j.phase == queued && j.row.State != cbsdmq.Held && !j.ready && !l.isPaused(j) {
		j.ready = true
		l.ready[j.plan.Class] = append(l.ready[j.plan.Class], j)
	}
}

func (l *loop) unready(j *job) {
	j.ready = false
	q := l.ready[j.plan.Class]
	for i, r := range q {
		if r == j {
			l.ready[j.plan.Class] = append(q[:i:i], q[i+1:]...)
			return
		}
	}
}

func (l *loop) takeSlot(j *job) bool {
	if l.free[j.plan.Class] <= 0 || !l.runnerUp || l.s.drain.Load() {
		return false
	}
	l.free[j.plan.Class]--
	j.slot = true
	return true
}

func (l *loop) giveSlot(j *job) {
	if j.slot {
		l.free[j.plan.Class]++
		j.slot = false
	}
}

// checkIdle closes Server.idle when the Server is to drain and nothing runs.
func (l *loop) checkIdle() {
	if !l.s.drain.Load() || l.s.running.Load() > 0 {
		return
	}
	select {
	case <-l.s.idle:
	default:
		close(l.s.idle)
	}
}
