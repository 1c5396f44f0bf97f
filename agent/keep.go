package agent

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/journal"
)

// keepEvery is how often housekeeping is done; more often where replies live
// shorter.
const keepEvery = time.Minute

// tick does what depends on time.
func (l *loop) tick(now time.Time) {
	for _, j := range l.byIdent {
		if j.phase == preparing && j.arrival != nil {
			l.enlist(j) // the intake waits for it, and its guest takes long to look at
		}
	}
	for _, j := range l.jobs {
		switch j.phase {
		case queued:
			l.tickQueued(j, now)
		case begun:
			l.tickBegun(j, now)
			l.tickStill(j, now)
		}
	}
	if len(l.lazy) > 0 && now.Sub(l.lazySince) >= tick {
		l.flushSent()
	}
	if err := l.s.cfg.Journal.SaveMark(); err != nil && !l.bad {
		l.s.log.Warn("could not save how far the journal has come", "err", err)
	}
}

func (l *loop) tickQueued(j *job, now time.Time) {
	if j.row.State != cbsdmq.Held && j.expired(now) {
		l.expire(j)
		return
	}
	if !j.again.IsZero() && now.After(j.again) {
		j.again = time.Time{}
		l.makeReady(j)
	}
}

// expired reports whether j may not begin any more.
func (j *job) expired(now time.Time) bool {
	return j.row.Flags&journal.Again == 0 && !j.row.Expires.IsZero() && now.After(j.row.Expires)
}

// expire ends a job that did not begin in time.
func (l *loop) expire(j *job) {
	l.endQueued(j, cbsdmq.Refused, cbsdmq.ExitRefused, reasonExpired, hintExpired)
}

func (l *loop) tickBegun(j *job, now time.Time) {
	limit := l.s.cfg.TimeLimit
	switch {
	case j.termAt.IsZero() && j.why != "":
		l.terminate(j, j.why) // it could not be signalled before
	case j.termAt.IsZero():
		if limit <= 0 || now.Sub(j.row.Begun) <= limit {
			return
		}
		if _, started := l.s.live.run(j.row.ID); started {
			l.terminate(j, cbsdmq.Timeout)
		}
	case !j.killAt.IsZero() && now.After(j.killAt):
		j.killAt = time.Time{}
		l.signal(j, syscall.SIGKILL)
	}
}

// terminate asks a running command to end, and makes it end after a while.
func (l *loop) terminate(j *job, why cbsdmq.State) {
	if j.why == "" || why == cbsdmq.Cancelled {
		j.why = why
	}
	if j.phase != begun || !j.termAt.IsZero() {
		return // it ends already; or it is signalled when it has started
	}
	if _, started := l.s.live.run(j.row.ID); !started {
		return
	}
	j.termAt = time.Now()
	j.killAt = j.termAt.Add(l.s.cfg.KillGrace)
	l.signal(j, syscall.SIGTERM)
}

func (l *loop) signal(j *job, sig syscall.Signal) {
	r, key, s, name := l.s.runner.get(), j.key, l.s, j.printedID(l.s.cfg.Pool)
	if r == nil {
		j.termAt = time.Time{} // when there is a runner again
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(s.life, tick)
		defer cancel()
		err := r.Kill(ctx, key, sig)
		if err != nil {
			s.log.Info("could not signal a command", "job", name, "signal", sig.String(), "err", err)
			s.post(s.life, func(*loop) {
				if j.key == key && j.phase == begun {
					j.termAt, j.killAt = time.Time{}, time.Time{} // at the next tick, unless it has ended
				}
			})
		}
	}()
}

// keep does the housekeeping: old results, and replies that nobody has read.
func (s *Server) keep(ctx context.Context) {
	for sleep(ctx, min(keepEvery, max(s.cfg.ReplyTTL, time.Second))) {
		s.prune(ctx)
		s.expire(ctx)
	}
}

func (s *Server) prune(ctx context.Context) {
	for {
		done := make(chan bool, 1)
		if !s.post(ctx, func(l *loop) {
			if err := s.cfg.Journal.Scrub(); err != nil && !l.bad && ctx.Err() == nil {
				s.log.Warn("could not take secrets of ended jobs out of the journal's log", "err", err)
			}
			more, err := s.cfg.Journal.Prune(ctx, time.Now(), s.cfg.Limits)
			if err != nil && !l.bad && ctx.Err() == nil {
				s.log.Warn("could not drop old results", "err", err)
			}
			s.cfg.Journal.RestoreReserve()
			done <- more && err == nil
		}) {
			return
		}
		select {
		case more := <-done:
			if !more {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// expire removes what was not read in time from brokers that do not do it
// themselves: replies, pieces of output, and answers of the control lane.
func (s *Server) expire(ctx context.Context) {
	for _, e := range s.cfg.Endpoints {
		if e.Bus.Caps().TTL {
			continue
		}
		callCtx, cancel := context.WithTimeout(ctx, keepEvery)
		n, err := e.Bus.Sweep(callCtx, e.ownsMailbox, s.cfg.ReplyTTL)
		cancel()
		if n > 0 {
			s.log.Info("removed replies that nobody has read", "bus", e.Name, "replies", n)
		}
		if err != nil && ctx.Err() == nil && e.Bus.Outages() == 0 {
			s.log.Warn("could not look for unread replies", "bus", e.Name, "err", err)
		}
	}
}

// ownsMailbox reports whether tube is one of the endpoint's reply tubes.
func (e Endpoint) ownsMailbox(tube string) bool {
	rest, ok := strings.CutPrefix(tube, e.Prefix)
	if !ok {
		return false
	}
	if ulid, isControl := strings.CutPrefix(rest, "c"); isControl {
		return cbsdmq.ValidULID(ulid)
	}
	_, err := strconv.ParseUint(rest, 10, 64)
	return err == nil
}

// pause is the wait before attempt n: twice as long each time, up to 5 s, with
// some jitter so that many agents do not come at once.
func pause(n int) time.Duration {
	d := min(50*time.Millisecond<<min(max(n, 1), 7), 5*time.Second)
	return d/2 + rand.N(d/2)
}

// sleep waits for d, or until ctx ends: then it returns false.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
