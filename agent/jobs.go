package agent

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/journal"
)

func (s *Server) list(ctx context.Context, req cbsdmq.Request) (cbsdmq.Response, error) {
	limit := listLimit(req.Limit)
	rows, err := s.cfg.Journal.Reader().Search(ctx, limit+1, journal.Search{State: req.State, Before: req.After, Guest: req.Guest, Since: req.Since})
	resp := cbsdmq.Response{More: len(rows) > limit}
	for _, row := range rows[:min(len(rows), limit)] {
		resp.Jobs = append(resp.Jobs, s.info(ctx, row))
	}
	return resp, err
}

// listLimit is how many of a list are answered that is asked for at most limit.
func listLimit(limit int) int {
	if limit <= 0 || limit > 1000 {
		return jobsLimit
	}
	return limit
}

func (s *Server) info(ctx context.Context, row *journal.Job) cbsdmq.JobInfo {
	in := describe(ctx, s.cfg.Pool, s.cfg.Journal.Reader(), s.paused(), row)
	if r, ok := s.live.run(row.ID); ok {
		in.Output = r.size()
		if in.Work = s.work(context.Background(), row.ID); in.Work != nil {
			in.Progress = in.Work.Percent
		}
	}
	return in
}

// JobInfos is what a pool's journal says about rows of it. Secrets in arguments
// are hidden.
func JobInfos(ctx context.Context, pool string, r journal.Reader, rows []*journal.Job) ([]cbsdmq.JobInfo, error) {
	list, err := r.Pauses(ctx)
	if err != nil {
		return nil, err
	}
	now := make(pauses, len(list))
	for _, p := range list {
		now[p.Guest] = p
	}
	jobs := make([]cbsdmq.JobInfo, len(rows))
	for i, row := range rows {
		jobs[i] = describe(ctx, pool, r, now, row)
	}
	return jobs, nil
}

func describe(ctx context.Context, pool string, reader journal.Reader, paused pauses, row *journal.Job) cbsdmq.JobInfo {
	in := cbsdmq.JobInfo{
		ID: cbsdmq.PrintedID(pool, row.ID), Pool: pool, Command: row.Command, Args: []string{}, Guest: row.Guest,
		State: row.State, AcceptedAt: row.Accepted, BegunAt: row.Begun, FinishedAt: row.Finished,
		Sender: row.Sender, Signer: row.Signer, Output: row.OutSize,
	}
	if row.State == cbsdmq.Unknown {
		// Where it cannot be read the end of the job is told without.
		in.Verdict, _ = reader.Verdict(ctx, row.Seq)
	}
	var plan cbsd.Plan
	if row.Plan != nil && json.Unmarshal(row.Plan, &plan) == nil && len(plan.Argv) > 0 {
		in.Paused = !row.State.Ended() && row.Begun.IsZero() && paused.of(plan.Class, plan.Lanes) != nil
		for _, a := range plan.Argv[1:] {
			if name, _, ok := strings.Cut(a, "="); ok && cbsd.Redact(name) {
				a = name + "=" + cbsd.Hidden
			}
			in.Args = append(in.Args, a)
		}
	} else {
		in.ArgsLost = true
	}
	var r cbsdmq.Reply
	if row.Result != nil && json.Unmarshal(row.Result, &r) == nil {
		in.Outcome, in.ErrCode, in.Reason, in.Progress = r.Outcome, r.ErrCode, r.Reason, 100
	}
	return in
}
