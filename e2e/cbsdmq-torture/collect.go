package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/e2e/judge"
)

// collect asks the agents for every job's end, and once more after a restart. An
// agent may be the broker of others: they are restarted when all were asked.
func (r *round) collect(ctx context.Context, worlds []*world, rec *record) error {
	if err := r.askAll(ctx, worlds, rec, "a late follower", 1); err != nil {
		return err
	}
	for _, w := range worlds {
		for _, p := range w.pools {
			p.take().kill()
			if err := p.start(); err != nil {
				return err
			}
		}
	}
	return r.askAll(ctx, worlds, rec, "a follower after a restart", 8)
}

// askAll asks in every pool for one in every so many jobs.
func (r *round) askAll(ctx context.Context, worlds []*world, rec *record, who string, every int) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	for _, w := range worlds {
		for _, p := range w.pools {
			wg.Go(func() {
				if err := p.ask(ctx, who, rec, every, r.rand(p.name+who)); err != nil {
					mu.Lock()
					first = fmt.Errorf("asking %s at the end: %w", p.name, err)
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return first
}

// ask asks for one in every so many jobs of the pool, and for the output of some.
func (p *pool) ask(ctx context.Context, who string, rec *record, every int, rnd *rand.Rand) error {
	c, done, err := p.session(ctx, "judge")
	if err != nil {
		return err
	}
	defer done()
	acts, _, err := judge.ReadTruthFile(p.truth, p.name)
	if err != nil {
		return err
	}
	// What the agent does not know yet may be on the tube, or nowhere.
	patience, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for i, job := range rec.of(p.name) {
		if i%every != 0 {
			continue
		}
		id := rec.printed(job, acts)
		if id == "" {
			continue
		}
		info, final, err := p.askOne(ctx, patience, c, job, id)
		if err != nil {
			return err
		}
		if info == nil {
			continue
		}
		rec.accepted(job)
		if final == nil {
			p.w.note("%s: %s is %s", who, id, info.State)
			continue
		}
		rec.reply(*final, func(r *judge.Reply) { r.Follower, r.For = who, job.ID })
		if rnd.IntN(3) == 0 {
			o := judge.Output{Job: job.ID, By: who}
			var b bytes.Buffer
			for fails := 0; ; fails++ {
				b.Reset()
				if o.Missing, err = c.Output(ctx, id, &b); err == nil {
					break
				}
				if fails > 10 {
					return fmt.Errorf("the output of %s: %w", id, err)
				}
			}
			o.Data = b.Bytes()
			rec.output(o)
		}
	}
	return nil
}

// askOne waits until the job has ended, as long as there is patience; what the
// agent does not know is nil.
func (p *pool) askOne(ctx, patience context.Context, c *client.Client, job *judge.Job, id string) (*cbsdmq.JobInfo, *cbsdmq.Reply, error) {
	for fails := 0; ; {
		info, final, err := c.Job(ctx, id)
		missing := cbsdmq.CodeOf(err) == cbsdmq.CodeNotFound
		switch {
		case err == nil && (final != nil || patience.Err() != nil):
			return &info, final, nil //nolint:nilerr // err is nil
		case missing && (!confirmed(job) || patience.Err() != nil):
			return nil, nil, nil //nolint:nilerr // that is the answer
		case err != nil && !missing:
			if fails++; fails > 10 {
				return nil, nil, fmt.Errorf("asking for %s: %w", id, err)
			}
		}
		if !wait(ctx, 100*time.Millisecond) {
			return nil, nil, fmt.Errorf("asking for %s: %w", id, context.Cause(ctx))
		}
	}
}

func confirmed(job *judge.Job) bool {
	return slices.ContainsFunc(job.Submits, func(s judge.Submit) bool { return s.Confirmed })
}

// of are the jobs of a pool.
func (r *record) of(pool string) (jobs []*judge.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		if j.Pool == pool {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// printed is the printed id of a job, "" where nobody knows it.
func (r *record) printed(job *judge.Job, acts []judge.Act) string {
	if !job.Legacy {
		return job.ID
	}
	ran := make(map[string]bool)
	for _, a := range acts {
		for _, arg := range a.Args {
			if job.Token != "" && strings.HasSuffix(arg, "="+job.Token) {
				return a.Job
			}
		}
		ran[a.Job] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reply := range r.replies {
		// A number that a broker gave again may be of a job that ran.
		if reply.For == job.ID && reply.Job != "" && !ran[reply.Job] {
			return reply.Job
		}
	}
	return r.ids[job.ID]
}
