package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/journal"
)

// An openJob is a job that has not ended, as the journal has it.
type openJob struct {
	*journal.Job
	plan cbsd.Plan
}

// touches reports whether two jobs wait for each other.
func (j *openJob) touches(lanes []string) bool {
	return slices.ContainsFunc(j.plan.Lanes, func(lane string) bool {
		return lane == cbsd.WholePool || slices.Contains(lanes, lane) || slices.Contains(lanes, cbsd.WholePool)
	})
}

// openJobs reads the jobs that have not ended, in order of acceptance.
func openJobs(ctx context.Context, r journal.Reader) ([]*openJob, error) {
	rows, err := r.Open(ctx)
	if err != nil {
		return nil, err
	}
	open := make([]*openJob, 0, len(rows))
	for _, row := range rows {
		j := &openJob{Job: row}
		if json.Unmarshal(row.Plan, &j.plan) == nil {
			open = append(open, j)
		}
	}
	return open, nil
}

// why says what jobs wait for: one of them, those of a guest, or all.
func (s *Server) why(ctx context.Context, req cbsdmq.Request) (cbsdmq.Response, error) {
	var resp cbsdmq.Response
	open, err := openJobs(ctx, s.cfg.Journal.Reader())
	if err != nil {
		return resp, err
	}
	if req.Guest != "" {
		if resp.Guests, err = s.guests(ctx, req); err != nil {
			return resp, err
		}
	}
	limit := listLimit(req.Limit)
	for i, j := range open {
		if req.Job != "" && j.ID != req.Job || req.Guest != "" && !j.touches([]string{req.Guest}) {
			continue
		}
		if len(resp.Waits) == limit {
			resp.More = true
			break
		}
		resp.Waits = append(resp.Waits, s.wait(ctx, j, open[:i], open))
	}
	if req.Job != "" && len(resp.Waits) == 0 {
		row, err := s.row(ctx, req.Job)
		if err != nil {
			return resp, err
		}
		info := s.info(ctx, row)
		resp.Job = &info
	}
	return resp, nil
}

// wait says what one job waits for; before are the jobs accepted before it.
func (s *Server) wait(ctx context.Context, j *openJob, before, open []*openJob) cbsdmq.Wait {
	w := cbsdmq.Wait{
		Job: cbsdmq.PrintedID(s.cfg.Pool, j.ID), Command: j.Command, Guest: j.Guest, State: j.State,
		Sender: j.Sender, Since: j.Accepted, Causes: []cbsdmq.Cause{},
	}
	if !j.Begun.IsZero() {
		w.Since = j.Begun
		return w
	}
	add := func(kind, text string, since time.Time) *cbsdmq.Cause {
		w.Causes = append(w.Causes, cbsdmq.Cause{Kind: kind, Text: text, Since: since})
		return &w.Causes[len(w.Causes)-1]
	}
	if j.State == cbsdmq.Held {
		add("held", fmt.Sprintf("the journal went back in time, so it may have run: `cbsdmq held release %[1]s` or `cbsdmq held drop %[1]s`", s.cfg.Pool), time.Time{})
	}
	if t := s.trouble.Load(); t != nil {
		add("journal", "the journal cannot be written: "+*t, time.Time{})
	}
	if t := s.unfit.Load(); t != nil && *t != "" && j.plan.Class == cbsd.Change {
		add("cbsd", *t, time.Time{})
	}
	if s.drain.Load() {
		add("drain", "the agent is about to end and begins nothing more", time.Time{})
	}
	if t := s.runner.missing(); t != "" {
		add("runner", t, time.Time{})
	}
	if p := s.paused().of(j.plan.Class, j.plan.Lanes); p != nil {
		add("pause", pauseText(p), p.Since)
	}
	behind := false
	if first := firstOf(before, j.plan.Lanes); first != nil { // it is what the whole row waits for
		behind = true
		c := add("lane", laneText(first), first.Accepted)
		if !first.Begun.IsZero() {
			c.Since = first.Begun
		}
		c.Job = cbsdmq.PrintedID(s.cfg.Pool, first.ID)
	}
	if behind || len(w.Causes) > 0 {
		return w
	}
	if j.plan.Class == cbsd.Change {
		if b, busy := s.cfg.CBSD.Foreign(ctx, j.plan.Lanes, s.live.owns); busy {
			add("foreign", busyReason(&b), time.Time{})
			return w
		}
	}
	running, most := 0, s.cfg.Workers
	if j.plan.Class == cbsd.Read {
		most = s.cfg.Readers
	}
	for _, o := range open {
		if !o.Begun.IsZero() && o.plan.Class == j.plan.Class {
			running++
		}
	}
	if most > 0 && running >= most {
		key := "workers"
		if j.plan.Class == cbsd.Read {
			key = "readers"
		}
		add("worker", fmt.Sprintf("all %d %s are busy", most, key), time.Time{})
	}
	return w
}

// firstOf is the first job that touches lanes, one that runs before the others.
func firstOf(open []*openJob, lanes []string) (first *openJob) {
	for _, o := range open {
		if o.touches(lanes) && (first == nil || first.Begun.IsZero() && !o.Begun.IsZero()) {
			first = o
		}
	}
	return first
}

func laneText(j *openJob) string {
	what := j.Command
	if j.Guest != "" {
		what += " " + j.Guest
	}
	if !j.Begun.IsZero() {
		return what + " runs"
	}
	return what + " is before it"
}

// pauseText says who paused what, and why.
func pauseText(p *cbsdmq.Pause) string {
	what := "guest " + p.Guest
	if p.Guest == "" {
		what = "the pool"
	}
	text := fmt.Sprintf("%s is paused by %s", what, p.By)
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// WaitsWithoutAgent says what jobs of a pool wait for that nobody serves: of a
// guest, or the one with an id; cause says what is missing.
func WaitsWithoutAgent(ctx context.Context, pool string, r journal.Reader, guest, id, cause string) ([]cbsdmq.Wait, error) {
	open, err := openJobs(ctx, r)
	if err != nil {
		return nil, err
	}
	var waits []cbsdmq.Wait
	for _, j := range open {
		if id != "" && j.ID != id || guest != "" && !j.touches([]string{guest}) || len(waits) == jobsLimit {
			continue
		}
		w := cbsdmq.Wait{
			Job: cbsdmq.PrintedID(pool, j.ID), Command: j.Command, Guest: j.Guest, State: j.State, Sender: j.Sender,
			Since: j.Accepted, Causes: []cbsdmq.Cause{{Kind: "agent", Text: cause}},
		}
		if !j.Begun.IsZero() {
			w.Since, w.Causes = j.Begun, []cbsdmq.Cause{}
		}
		waits = append(waits, w)
	}
	return waits, nil
}
