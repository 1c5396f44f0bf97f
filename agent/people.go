package agent

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/journal"
)

// pausesMax bounds what is paused in a pool at one time.
const pausesMax = 1000

// pauses are what people paused, by guest; "" is the whole pool. A map is not
// changed once others may see it.
type pauses map[string]cbsdmq.Pause

// of returns what keeps a job with these lanes from being begun, or nil.
func (p pauses) of(class cbsd.Class, lanes []string) *cbsdmq.Pause {
	if len(p) == 0 || class == cbsd.Read {
		return nil
	}
	if all, ok := p[""]; ok {
		return &all
	}
	for _, lane := range lanes {
		if lane == cbsd.WholePool {
			one := p[slices.Min(slices.Collect(maps.Keys(p)))]
			return &one
		}
		if one, ok := p[lane]; ok {
			return &one
		}
	}
	return nil
}

// guest returns what keeps a guest from being changed, or nil.
func (p pauses) guest(name string) *cbsdmq.Pause { return p.of(cbsd.Change, []string{name}) }

// paused are the pauses of now, for those outside the loop.
func (s *Server) paused() pauses {
	if p := s.pauses.Load(); p != nil {
		return *p
	}
	return nil
}

// loadPauses reads what was paused before the agent was started.
func (s *Server) loadPauses(ctx context.Context) error {
	list, err := s.cfg.Journal.Reader().Pauses(ctx)
	if err != nil {
		return err
	}
	now := make(pauses, len(list))
	for _, p := range list {
		p.Pool = s.cfg.Pool
		now[p.Guest] = p
	}
	s.pauses.Store(&now)
	return nil
}

// ask has the loop do something and waits until it is in the journal.
func (s *Server) ask(ctx context.Context, f func(l *loop, done func(error))) error {
	answer := make(chan error, 1)
	done := func(err error) { answer <- err }
	if !s.post(ctx, func(l *loop) { f(l, done) }) {
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// note calls done when the next commit is written, or failed.
func (l *loop) note(done func(error)) {
	l.failed = append(l.failed, done)
	l.after = append(l.after, func() { done(nil) })
}

func (l *loop) act(what string, req cbsdmq.Request) {
	l.batch.Act = append(l.batch.Act, cbsdmq.Act{
		At: time.Now(), By: req.By, What: what, Guest: req.Guest, Job: req.Job, Reason: req.Reason,
	})
}

// pause keeps everything that changes a guest, or the pool, from being begun.
// From now on: what cannot be written is undone.
func (s *Server) pause(ctx context.Context, req cbsdmq.Request) error {
	if req.Guest != "" {
		if err := s.checkGuest(ctx, req.Guest); err != nil {
			return err
		}
	}
	return s.ask(ctx, func(l *loop, done func(error)) {
		before := s.paused()
		if _, known := before[req.Guest]; !known && len(before) >= pausesMax {
			done(cbsdmq.Errorf(cbsdmq.CodeRefused, "guest", "%d guests are paused already", len(before)).
				WithHint("pause the whole pool"))
			return
		}
		p := cbsdmq.Pause{Pool: s.cfg.Pool, Guest: req.Guest, Reason: req.Reason, By: req.By, Since: time.Now().Truncate(time.Microsecond)}
		l.setPauses(func(now pauses) { now[req.Guest] = p })
		l.batch.Pause = append(l.batch.Pause, p)
		// Who asked for its end at the same moment has asked before.
		l.batch.Resume = slices.DeleteFunc(l.batch.Resume, func(guest string) bool { return guest == req.Guest })
		l.act("pause", req)
		l.after = append(l.after, func() {
			s.log.Info("paused", "guest", req.Guest, "by", req.By, "reason", req.Reason)
			done(nil)
		})
		l.failed = append(l.failed, func(err error) {
			l.setPauses(func(now pauses) {
				delete(now, req.Guest)
				if old, was := before[req.Guest]; was {
					now[req.Guest] = old
				}
			})
			done(err)
		})
	})
}

// checkGuest refuses a name that the pool does not have. Where that cannot be
// read it is taken: a broken pool is a reason to pause one of its guests.
func (s *Server) checkGuest(ctx context.Context, name string) error {
	guests, err := s.cfg.CBSD.Guests(ctx)
	if err != nil || slices.ContainsFunc(guests, func(g cbsdmq.Guest) bool { return g.Name == name }) {
		return nil //nolint:nilerr // see above
	}
	return cbsdmq.Errorf(cbsdmq.CodeNotFound, "guest", "pool %s has no guest %s", s.cfg.Pool, name).
		WithHint("`cbsdmq guests %s` lists those it has", s.cfg.Pool)
}

// resume ends a pause.
func (s *Server) resume(ctx context.Context, req cbsdmq.Request) error {
	return s.ask(ctx, func(l *loop, done func(error)) {
		now := s.paused()
		was, is := now[req.Guest]
		if !is {
			done(notPaused(s.cfg.Pool, req.Guest, now))
			return
		}
		l.batch.Resume = append(l.batch.Resume, req.Guest)
		l.act("resume", req)
		l.failed = append(l.failed, done)
		l.after = append(l.after, func() {
			s.log.Info("resumed", "guest", req.Guest, "by", req.By)
			if s.paused()[req.Guest] == was { // else it was paused anew with the same commit
				l.setPauses(func(now pauses) { delete(now, req.Guest) })
			}
			done(nil)
		})
	})
}

func notPaused(pool, guest string, now pauses) error {
	what, hint := "pool "+pool, "nothing in it is"
	if guest != "" {
		what = "guest " + guest
	}
	if _, all := now[""]; all && guest != "" {
		hint = "the whole pool is: `cbsdmq resume " + pool + "`"
	} else if len(now) > 0 {
		var names []string
		for name := range now {
			names = append(names, name)
		}
		slices.Sort(names)
		hint = "paused are: " + strings.Join(names[:min(len(names), 10)], ", ")
	}
	return cbsdmq.Errorf(cbsdmq.CodeNotFound, "guest", "%s is not paused", what).WithHint("%s", hint)
}

// setPauses changes what is paused, and lets wait or go on whom that concerns.
func (l *loop) setPauses(change func(pauses)) {
	now := make(pauses)
	maps.Copy(now, l.s.paused())
	change(now)
	l.s.pauses.Store(&now)
	for _, j := range slices.Clone(l.ready[cbsd.Change]) {
		if l.isPaused(j) {
			l.unready(j)
		}
	}
	var free []*job
	for _, j := range l.jobs {
		if l.isPaused(j) {
			j.busySince = time.Time{} // a person at work there is no reason to refuse it later
		}
		if j.phase == queued && j.waits == 0 && j.again.IsZero() && !j.ready {
			free = append(free, j)
		}
	}
	slices.SortFunc(free, func(a, b *job) int { return int(a.row.Seq - b.row.Seq) })
	for _, j := range free {
		l.makeReady(j)
	}
}

// isPaused reports whether j must not be begun now.
func (l *loop) isPaused(j *job) bool { return l.s.paused().of(j.plan.Class, j.plan.Lanes) != nil }

// resolve notes what a person found out about a job that ended unknown.
func (s *Server) resolve(ctx context.Context, req cbsdmq.Request) error {
	row, err := s.row(ctx, req.Job)
	if err != nil {
		return err
	}
	if row.State != cbsdmq.Unknown {
		what, hint := "has not ended: it is "+string(row.State), "follow it with `cbsdmq follow`"
		if row.State.Ended() {
			what, hint = "ended "+string(row.State), "only the end of a job that is unknown can be settled by a person"
		}
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "job", "%s", what).WithHint("%s", hint)
	}
	return s.ask(ctx, func(l *loop, done func(error)) {
		l.batch.Verdict = append(l.batch.Verdict, journal.Verdict{Seq: row.Seq, Verdict: cbsdmq.Verdict{
			State: req.State, Reason: req.Reason, By: req.By, At: time.Now(),
		}})
		req.Job, req.Guest = row.ID, row.Guest
		l.act("resolve", req)
		l.note(func(err error) {
			if err == nil {
				s.log.Info("an unknown end was settled by a person", "job", cbsdmq.PrintedID(s.cfg.Pool, row.ID), "state", req.State, "by", req.By, "reason", req.Reason)
			}
			done(err)
		})
	})
}

// acts lists what people did.
func (s *Server) acts(ctx context.Context, req cbsdmq.Request) (cbsdmq.Response, error) {
	before := int64(0)
	if req.After != "" {
		var err error
		if before, err = strconv.ParseInt(req.After, 10, 64); err != nil {
			return cbsdmq.Response{}, cbsdmq.Errorf(cbsdmq.CodeRefused, "after", "%q is not the seq of an act", req.After)
		}
	}
	limit := listLimit(req.Limit)
	acts, err := Acts(ctx, s.cfg.Pool, s.cfg.Journal.Reader(), limit+1, req.Guest, req.Since, before)
	return cbsdmq.Response{Acts: acts[:min(len(acts), limit)], More: len(acts) > limit}, err
}

// Acts is what a pool's journal knows of what people did, see journal.Reader.
func Acts(ctx context.Context, pool string, r journal.Reader, limit int, guest string, since time.Time, before int64) ([]cbsdmq.Act, error) {
	acts, err := r.Acts(ctx, limit, guest, since, before)
	for i := range acts {
		acts[i].Pool = pool
		if acts[i].Job != "" {
			acts[i].Job = cbsdmq.PrintedID(pool, acts[i].Job)
		}
	}
	return acts, err
}

// listPauses lists what is paused, by guest.
func (s *Server) listPauses(req cbsdmq.Request) cbsdmq.Response {
	var resp cbsdmq.Response
	for guest, p := range s.paused() {
		if req.After == "" || guest > req.After {
			resp.Pauses = append(resp.Pauses, p)
		}
	}
	slices.SortFunc(resp.Pauses, func(a, b cbsdmq.Pause) int { return strings.Compare(a.Guest, b.Guest) })
	return resp
}
