package agent

import (
	"context"
	"errors"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/internal/failpoint"
	"github.com/cbsd/cbsdmq/journal"
)

// maxReceive bounds the deliveries that are on their way into the journal.
const maxReceive = 64

const (
	reasonExpired = "expired before it could begin"
	hintExpired   = "submit it again, with more time if that is still wanted"
)

// intake takes jobs from the tube of e as long as there is room for them, and
// acknowledges each when it is in the journal.
func (s *Server) intake(ctx context.Context, e Endpoint) {
	var c bus.Consumer
	var err error
	for attempt := 0; ; attempt++ {
		c, err = e.Bus.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{{Name: e.Tube}}, MaxBody: cbsdmq.JobMax, Alone: true})
		if err == nil {
			break
		}
		if !sleep(ctx, pause(attempt)) {
			return
		}
	}
	defer c.Close()
	for attempt := 0; s.mayReceive(ctx); {
		outages := e.Bus.Outages()
		ds, err := c.Receive(ctx, s.mostReceive())
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			attempt++
			sleep(ctx, pause(attempt))
			continue
		}
		if e.Bus.Outages() != outages {
			_ = c.Release(ctx, 0, ds...) // which incarnation of the broker gave their numbers?
			continue
		}
		if s.out[e.Name].checkIDs(ctx) != nil {
			_ = c.Release(ctx, 0, ds...) // or the end of the connection gives them back
			attempt++
			sleep(ctx, pause(attempt))
			continue
		}
		attempt = 0
		s.take(ctx, e, c, ds, outages)
	}
}

// mostReceive is how many jobs may be taken once one may: whatever has happened
// since, no Consumer can be asked for none.
func (s *Server) mostReceive() int {
	if s.full.Load() {
		return 1
	}
	return max(1, min(s.cfg.Backlog-int(s.open.Load()), maxReceive))
}

// mayReceive waits until a job may be taken: there is room, the journal can be
// written and nobody asked to drain. While the disk is full one may be taken
// now and then, as it may be one that makes room. False when ctx ends.
func (s *Server) mayReceive(ctx context.Context) bool {
	for {
		var wait <-chan struct{}
		var now <-chan time.Time
		switch {
		case s.drain.Load():
			wait = nil
		case s.trouble.Load() != nil:
			wait = s.healthy
			if s.full.Load() {
				now = time.After(tick)
			}
		case int(s.open.Load()) >= s.cfg.Backlog:
			wait = s.room
		default:
			return ctx.Err() == nil
		}
		select {
		case <-wait:
		case <-now:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// take brings deliveries into the journal and settles them with the broker.
func (s *Server) take(ctx context.Context, e Endpoint, c bus.Consumer, ds []bus.Delivery, outages int) {
	failpoint.Hit(failpoint.Received)
	errs := make([]error, len(ds))
	settled := make(chan struct{}, len(ds))
	arrivals := make([]*arrival, 0, len(ds))
	for i, d := range ds {
		a, err := s.arrive(ctx, e, c, d)
		if err != nil {
			break
		}
		numbered := a.accept.Address.BrokerID || a.accept.Job.Flags&journal.Legacy != 0
		a.lost = func() bool { return numbered && e.Bus.Outages() != outages }
		a.done = func(err error) { errs[i] = err; settled <- struct{}{} }
		arrivals = append(arrivals, a)
	}
	if len(arrivals) > 0 && !s.post(ctx, func(l *loop) {
		for i, a := range arrivals {
			if !l.arrive(a) {
				for _, a := range arrivals[i:] {
					a.done(errNotNow)
				}
				return
			}
		}
	}) {
		return // the consumer's end gives them back
	}
	for range arrivals {
		select {
		case <-settled:
		case <-ctx.Done():
			return
		}
	}
	var acks, back []bus.Delivery
	for i, d := range ds {
		if i < len(arrivals) && errs[i] == nil {
			acks = append(acks, d)
		} else {
			back = append(back, d)
		}
	}
	// What cannot be settled comes again and is answered from the journal.
	if len(acks) > 0 {
		_ = c.Ack(ctx, acks...)
		failpoint.Hit(failpoint.Acked)
	}
	// What goes back takes all behind it along: it keeps its place.
	if len(back) > 0 {
		_ = c.Release(ctx, 0, back...)
		sleep(ctx, tick)
	}
}

// errNotNow gives a delivery back to the broker.
var errNotNow = errors.New("not now")

// arrive puts a delivery into the next commit, begun if nothing stands in its
// way. It returns false where it cannot be taken now.
func (l *loop) arrive(a *arrival) bool {
	if l.bad && (!l.full || !a.plan.FreesRoom()) || l.s.drain.Load() {
		return false
	}
	if twin := l.byIdent[a.accept.Job.Ident]; twin != nil && (twin.phase == arriving || twin.phase == preparing) && twin.arrival != nil {
		return false // it is on its way into the journal
	}
	j := &job{row: a.accept.Job, plan: a.plan, arrival: a}
	if a.accept.Address != (journal.Address{}) {
		j.addrs = []journal.Address{a.accept.Address}
	}
	if a.ended != nil {
		j.ended = []func(){a.ended}
	}
	known := l.byIdent[j.row.Ident] != nil
	if a.accept.End != nil || known {
		l.s.open.Add(1)
		j.node.job = j
		l.enlist(j)
		return true
	}
	j.node.lanes = a.plan.Lanes
	// The journal has jobs of one guest in their order, also after a crash: what
	// is still being looked at goes in before what waits for it.
	for n := range l.add(j) {
		if n.job.arrival != nil {
			l.enlist(n.job)
		}
	}
	switch {
	case j.row.Flags&journal.Crashed != 0: // into the journal before it is looked at again
		l.enlist(j)
	case j.waits > 0 || len(l.ready[j.plan.Class]) > 0 || l.isPaused(j) || !l.takeSlot(j):
		l.enlist(j)
	case j.plan.Class == cbsd.Read:
		a.accept.Begin = true
		l.enlist(j)
	default:
		j.phase = preparing
		l.prepare(j)
	}
	return true
}

// enlist puts an arrival into the next commit.
func (l *loop) enlist(j *job) {
	if j.listed {
		return
	}
	j.listed = true
	l.batch.Urgent = l.batch.Urgent || j.plan.FreesRoom()
	l.batch.Accept = append(l.batch.Accept, j.arrival.accept)
	l.accepting = append(l.accepting, j)
}

// accepted settles an arrival that is in the journal and reports whether it is
// to be started.
func (l *loop) accepted(j *job) (start bool) {
	a := j.arrival
	j.arrival = nil
	defer a.done(nil)
	switch {
	case a.accept.Known != nil:
		l.repeat(j, a.accept)
	case a.accept.End != nil:
		l.s.cfg.Stats.count(cbsdmq.Refused, j.row.Accepted, time.Time{}, j.row.Accepted)
		l.s.log.Info("job refused", append(l.s.about(j), "state", cbsdmq.Refused, "err", refusedReason(a.accept.End))...)
		l.s.owe(j.row.Seq, j.addrs, nil)
		l.drop(j)
		j.tellEnd()
	default:
		l.jobs[j.row.Seq], l.byID[j.row.ID] = j, j
		switch {
		case a.accept.Cancelled:
			l.giveSlot(j)
			j.phase = queued
			l.endQueued(j, cbsdmq.Cancelled, cbsdmq.ExitCancelled, "cancelled before it came", "")
		case a.accept.Begin:
			return true
		case j.phase == preparing: // its guest is still being looked at
		default:
			l.giveSlot(j)
			j.phase = queued
			switch {
			case j.misfit != nil:
				l.endMisfit(j)
			case j.waits == 0 && j.again.IsZero():
				l.makeReady(j)
			}
		}
	}
	return false
}

// repeat answers the delivery of a job that the journal had already.
func (l *loop) repeat(j *job, a *journal.Accept) {
	l.drop(j)
	first := l.jobs[a.Known.Seq]
	if first != nil {
		first.ended = append(first.ended, j.ended...)
	} else {
		j.tellEnd()
	}
	if !a.NewAddress {
		return
	}
	if first != nil {
		first.addrs = append(first.addrs, a.Address)
		return
	}
	l.s.owe(a.Known.Seq, []journal.Address{a.Address}, nil)
}

// refuseArrival gives an arrival back that could not be written.
func (l *loop) refuseArrival(j *job, err error) {
	a := j.arrival
	j.arrival = nil
	l.drop(j)
	a.done(err)
}

// drop forgets a job that did not become one of the journal's.
func (l *loop) drop(j *job) {
	entered := l.byIdent[j.row.Ident] == j
	if entered {
		l.forget(j)
		return
	}
	j.phase = ended
	l.s.open.Add(-1)
}
