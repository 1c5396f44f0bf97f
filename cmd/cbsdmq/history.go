package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/journal"
)

// A logEntry is a job, or what a person did beside submitting one. For a
// program each is one object; "what" is the command of a job.
type logEntry struct {
	At      time.Time       `json:"at"`
	Pool    string          `json:"pool"`
	Guest   string          `json:"guest"`
	By      string          `json:"by"`
	Signer  string          `json:"signer,omitempty"`
	What    string          `json:"what"`
	Args    []string        `json:"args,omitempty"`
	State   cbsdmq.State    `json:"state,omitempty"`
	Outcome cbsdmq.Outcome  `json:"outcome,omitempty"`
	ErrCode *int            `json:"err_code,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Took    float64         `json:"took,omitempty"` // seconds
	Job     string          `json:"job,omitempty"`
	Verdict *cbsdmq.Verdict `json:"verdict,omitempty"`

	ended string // for people
}

func newLogCommand(g *globals) *cobra.Command {
	var t target
	var limit int
	since := timeFlag(24 * time.Hour)
	cmd := &cobra.Command{
		Use:   "log [POOL | GUEST | POOL GUEST]",
		Short: "Say who did what, when, and how it ended",
		Long: `List what was done in all pools, in one pool or to one guest, the oldest first:
jobs with their senders and ends, and who paused, resumed, cancelled, settled,
released or dropped something. It is from the pools' journals, which keep it for
id_memory (30 days), the arguments for retention (7 days). What is done with cbsd
in a shell is in no journal.

The name of a pool is always the pool's; a guest of that name is asked for by POOL
GUEST. On the host of a pool it is read from the file where the agent or the broker is
away.`,
		Example: `  cbsdmq log
  cbsdmq log web7 --since 2d
  cbsdmq log pool1 -n 1000
  cbsdmq log -o json --since 7d | jq 'select(.state=="failed")'`,
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: g.completeSubject,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			if limit < 1 {
				return usage("--limit: %d is less than 1", limit)
			}
			pools, guest, err := t.logOf(g, args)
			if err != nil {
				return err
			}
			from := time.Time{}
			if since > 0 {
				from = time.Now().Add(-time.Duration(since))
			}
			entries, err := each(pools, func(pool config.Found) ([]logEntry, error) {
				return g.poolLog(ctx, pool, limit, guest, from)
			})
			if guest != "" && err == nil && !slices.ContainsFunc(entries, func(e logEntry) bool { return e.Guest != "" || e.Job != "" }) {
				warn(g.stderr, "nothing was done to a guest %s itself: --since looks farther back", guest)
			}
			slices.SortStableFunc(entries, func(a, b logEntry) int { return a.At.Compare(b.At) })
			if len(entries) > limit {
				entries = entries[len(entries)-limit:]
				warn(g.stderr, "only the newest %d are shown: --limit", limit)
			}
			return errors.Join(err, g.listLog(entries))
		},
	}
	t.flags(cmd)
	cmd.Flags().Var(&since, "since", "how far back, such as 2d, by when jobs were accepted; 0 = all that is kept")
	cmd.Flags().IntVarP(&limit, "limit", "n", 200, "at most so many, the newest")
	return cmd
}

// logOf finds out whose log is meant. A guest may be gone meanwhile, so it is
// not looked for: a pool's name is the pool's.
func (t *target) logOf(g *globals, args []string) (pools []config.Found, guest string, err error) {
	switch {
	case t.file != "" && len(args) > 1:
		return nil, "", usage("--config stands in place of POOL: both were given")
	case t.file != "":
		pools, err = t.all(g, nil)
		return pools, strings.Join(args, ""), err
	case len(args) == 2:
		pools, err = t.all(g, args[:1])
		return pools, args[1], err
	}
	pools, err = t.all(g, nil)
	if len(args) == 0 || err != nil {
		return pools, "", err
	}
	for _, pool := range pools {
		if pool.Name == args[0] {
			pools, err = t.all(g, args)
			return pools, "", err
		}
	}
	return pools, args[0], nil
}

// poolLog asks the agent, or reads the journal.
func (g *globals) poolLog(ctx context.Context, pool config.Found, limit int, guest string, since time.Time) ([]logEntry, error) {
	if err := pool.Config.Validate(); err != nil {
		return nil, err
	}
	return askOrRead(g, pool, func(o client.Options) ([]logEntry, error) {
		return g.askLog(ctx, pool, o, limit, guest, since)
	}, func(r journal.Reader) ([]logEntry, error) {
		return readLog(ctx, pool.Name, r, limit, guest, since)
	})
}

func (g *globals) askLog(ctx context.Context, pool config.Found, o client.Options, limit int, guest string, since time.Time) ([]logEntry, error) {
	s, err := g.dial(ctx, pool, o)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	jobs, err := s.Search(ctx, limit, client.Query{Guest: guest, Since: since})
	if err != nil {
		return nil, err
	}
	acts, err := s.Acts(ctx, limit, guest, since)
	if cbsdmq.CodeOf(err) == cbsdmq.CodeRefused {
		warn(g.stderr, "%v: jobs only", err)
		err = nil
	}
	return logEntries(jobs, acts), err
}

func readLog(ctx context.Context, pool string, r journal.Reader, limit int, guest string, since time.Time) ([]logEntry, error) {
	rows, err := r.Search(ctx, limit, journal.Search{Guest: guest, Since: since})
	if err != nil {
		return nil, err
	}
	jobs, err := agent.JobInfos(ctx, pool, r, rows)
	if err != nil {
		return nil, err
	}
	acts, err := agent.Acts(ctx, pool, r, limit, guest, since, 0)
	return logEntries(jobs, acts), err
}

func logEntries(jobs []cbsdmq.JobInfo, acts []cbsdmq.Act) []logEntry {
	var list []logEntry
	for _, j := range slices.Backward(jobs) {
		e := logEntry{
			At: j.AcceptedAt, Pool: j.Pool, Guest: j.Guest, By: j.Sender, Signer: j.Signer, What: j.Command, Args: j.Args,
			State: j.State, Outcome: j.Outcome, Reason: j.Reason, Job: j.ID, Verdict: j.Verdict, ended: stateOf(j),
		}
		if j.State.Ended() {
			e.ErrCode = &j.ErrCode
		}
		if j.Outcome != "" && string(j.Outcome) != string(j.State) {
			e.ended += ", " + string(j.Outcome)
		}
		if !j.BegunAt.IsZero() && !j.FinishedAt.IsZero() {
			e.Took = j.FinishedAt.Sub(j.BegunAt).Seconds()
		}
		list = append(list, e)
	}
	for _, a := range slices.Backward(acts) {
		list = append(list, logEntry{At: a.At, Pool: a.Pool, Guest: a.Guest, By: a.By, What: a.What, Reason: a.Reason, Job: a.Job})
	}
	return list
}

func (g *globals) listLog(entries []logEntry) error {
	rows := make([][]string, len(entries))
	for i, e := range entries {
		if g.json() {
			if err := g.print(e); err != nil {
				return err
			}
			continue
		}
		took := ""
		if e.Took > 0 {
			took = span(time.Duration(e.Took * float64(time.Second)))
		}
		by := e.By
		if e.Signer != "" {
			by = strings.TrimSpace(by + " (signed by " + e.Signer + ")")
		}
		rows[i] = []string{moment(e.At), e.Pool, e.Guest, oneLine(by), e.What, e.ended, took, e.Job, oneLine(e.Reason)}
	}
	if g.json() {
		return nil
	}
	return table(g.stdout, []string{"AT", "POOL", "GUEST", "BY", "WHAT", "ENDED", "TOOK", "JOB", "REASON"}, rows)
}

// oneLine cuts a text for a table.
func oneLine(s string) string {
	const most = 60
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > most {
		return fmt.Sprintf("%s...", string(r[:most-3]))
	}
	return s
}
