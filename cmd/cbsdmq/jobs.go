package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/journal"
)

func newJobsCommand(g *globals) *cobra.Command {
	var t target
	var limit int
	var state string
	cmd := &cobra.Command{
		Use:   "jobs [POOL | ID]",
		Short: "List jobs, the newest first, or show one",
		Long: `List the jobs of a pool, or of all pools, the newest first; or show all that is
known of one.

On the host of the pool this works without agent and broker: the journal is
read instead.`,
		Example: `  cbsdmq jobs pool1
  cbsdmq jobs --state running
  cbsdmq jobs pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G
  cbsdmq jobs -o json --limit 1000 pool1 | jq -r 'select(.state=="failed").reason'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			if state == "waiting" { // as why, guests and pools call it
				state = string(cbsdmq.Queued)
			}
			if state != "" && !slices.Contains(states, state) {
				return usage("--state: there is no state %q: %s", state, strings.Join(states, ", "))
			}
			if limit < 1 {
				return usage("--limit: %d is less than 1", limit)
			}
			if len(args) == 1 && (t.file != "" || strings.Contains(args[0], "/")) {
				return g.showJob(ctx, &t, args[0])
			}
			pools, err := t.all(g, args)
			if err != nil {
				return err
			}
			jobs, err := each(pools, func(pool config.Found) ([]cbsdmq.JobInfo, error) {
				return g.poolJobs(ctx, pool, limit, cbsdmq.State(state))
			})
			return errors.Join(err, g.listJobs(jobs))
		},
	}
	t.flags(cmd)
	cmd.Flags().IntVarP(&limit, "limit", "n", 20, "at most so many jobs of a pool")
	cmd.Flags().StringVar(&state, "state", "", "only jobs in this `state`: "+strings.Join(states, ", "))
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

var states = []string{"queued", "held", "running", "done", "failed", "refused", "cancelled", "timeout", "unknown"}

// all takes the argument [POOL]: without it, all pools are meant.
func (t *target) all(g *globals, args []string) ([]config.Found, error) {
	if t.file != "" || len(args) > 0 {
		pool, _, err := t.pool(g, args)
		return []config.Found{pool}, err
	}
	pools := config.Find(g.places())
	for _, err := range pools.Broken {
		printError(g.stderr, err)
	}
	if len(pools.Found) == 0 {
		_, err := pools.Get("")
		e := cbsdmq.Errorf(cbsdmq.CodeNotFound, "", "there is no pool")
		e.Hint = cbsdmq.HintOf(err)
		return nil, e
	}
	return pools.Found, nil
}

// each asks all pools at the same time and returns what they have, in their
// order. What one of them cannot tell does not keep the others from it.
func each[T any](pools []config.Found, ask func(config.Found) ([]T, error)) (list []T, err error) {
	answers, errs := make([][]T, len(pools)), make([]error, len(pools))
	var wg sync.WaitGroup
	for i, pool := range pools {
		wg.Go(func() {
			answers[i], errs[i] = ask(pool)
			if errs[i] != nil && len(pools) > 1 {
				errs[i] = fmt.Errorf("pool %s: %w", pool.Name, errs[i])
			}
		})
	}
	wg.Wait()
	return slices.Concat(answers...), errors.Join(errs...)
}

// poolJobs asks the agent for its jobs, or reads them from its journal.
func (g *globals) poolJobs(ctx context.Context, pool config.Found, limit int, state cbsdmq.State) ([]cbsdmq.JobInfo, error) {
	return askOrRead(g, pool, func(o client.Options) ([]cbsdmq.JobInfo, error) {
		return g.askJobs(ctx, pool, o, limit, state)
	}, func(r journal.Reader) ([]cbsdmq.JobInfo, error) {
		rows, err := r.Newest(ctx, limit, state, "")
		if err != nil {
			return nil, err
		}
		return agent.JobInfos(ctx, pool.Name, r, rows)
	})
}

func (g *globals) askJobs(ctx context.Context, pool config.Found, o client.Options, limit int, state cbsdmq.State) ([]cbsdmq.JobInfo, error) {
	s, err := g.dial(ctx, pool, o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Jobs(ctx, limit, state)
}

func (g *globals) listJobs(jobs []cbsdmq.JobInfo) error {
	if g.json() {
		for _, j := range jobs {
			if err := g.print(j); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, len(jobs))
	for i, j := range jobs {
		rows[i] = []string{j.ID, j.Command, j.Guest, stateOf(j), string(j.Outcome), codeOf(j), moment(j.AcceptedAt), took(j), oneLine(j.Sender)}
	}
	return table(g.stdout, []string{"ID", "COMMAND", "GUEST", "STATE", "OUTCOME", "CODE", "ACCEPTED", "TOOK", "SENDER"}, rows)
}

// stateOf is a job's state with what a person did about it, or with how far it is
// where that is known.
func stateOf(j cbsdmq.JobInfo) string {
	switch {
	case j.Paused:
		return string(j.State) + ", paused"
	case j.Verdict != nil:
		return fmt.Sprintf("%s, settled: %s", j.State, j.Verdict.State)
	case j.State == cbsdmq.Running && j.Progress > 0:
		return fmt.Sprintf("%s %d%%", j.State, j.Progress)
	}
	return string(j.State)
}

// codeOf is the ErrCode of a job that has one.
func codeOf(j cbsdmq.JobInfo) string {
	if !j.State.Ended() {
		return ""
	}
	return fmt.Sprint(j.ErrCode)
}

// workOf says how far a running job is.
func workOf(j cbsdmq.JobInfo) string {
	if j.Work == nil || j.State != cbsdmq.Running {
		return ""
	}
	return describeWork(j.Work)
}

// took is how long a job's command has run.
func took(j cbsdmq.JobInfo) string {
	switch {
	case j.BegunAt.IsZero():
		return ""
	case j.FinishedAt.IsZero():
		return span(time.Since(j.BegunAt))
	}
	return span(j.FinishedAt.Sub(j.BegunAt))
}

// verdictOf says what a person found out about a job.
func verdictOf(j cbsdmq.JobInfo) string {
	v := j.Verdict
	if v == nil {
		return ""
	}
	text := fmt.Sprintf("%s, by %s at %s", v.State, v.By, moment(v.At))
	if v.Reason != "" {
		text += ": " + v.Reason
	}
	return text
}

// showJob prints all that is known of one job.
func (g *globals) showJob(ctx context.Context, t *target, id string) error {
	s, err := g.openJob(ctx, t, id)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.arrived(ctx, id); err != nil {
		return err
	}
	j, final, err := s.Job(ctx, id)
	if err != nil {
		return err
	}
	if g.json() {
		return g.print(j)
	}
	hint := ""
	if final != nil {
		hint = final.Hint
	}
	for _, line := range [][2]string{
		{"id", j.ID}, {"command", j.Command}, {"args", strings.Join(j.Args, " ")}, {"guest", j.Guest},
		{"state", stateOf(j)}, {"settled", verdictOf(j)}, {"outcome", string(j.Outcome)}, {"err_code", codeOf(j)},
		{"reason", j.Reason}, {"hint", hint}, {"sender", j.Sender}, {"signer", j.Signer},
		{"accepted", moment(j.AcceptedAt)}, {"begun", moment(j.BegunAt)}, {"finished", moment(j.FinishedAt)},
		{"took", took(j)}, {"work", workOf(j)}, {"output", size(j.Output)},
	} {
		if line[1] != "" {
			fmt.Fprintf(g.stdout, "%-9s %s\n", line[0], plain(line[1]))
		}
	}
	return nil
}
