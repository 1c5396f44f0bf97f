package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/spool"
)

const (
	spoolEnv  = "CBSDMQ_SPOOL"
	spoolWait = 2 * time.Second // for a broker, where the job can be kept
)

// spoolFlags are those of every subcommand that uses the spool.
type spoolFlags struct{ dir string }

func (f *spoolFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dir, "spool-dir", "", "`directory` of the spool (environment "+spoolEnv+"); default cbsdmq/spool below the user's state directory")
}

func (f *spoolFlags) open() (spool.Spool, error) {
	dir := cmp.Or(f.dir, os.Getenv(spoolEnv))
	if dir == "" {
		var err error
		if dir, err = spool.Default(); err != nil {
			return spool.Spool{}, err
		}
	}
	dir, err := filepath.Abs(dir)
	return spool.At(dir), err
}

// away reports whether err says that the broker cannot be reached, or that it is
// not known whether it has the job.
func away(err error) bool {
	code := cbsdmq.CodeOf(err)
	return code == cbsdmq.CodeUnreachable || code == cbsdmq.CodeGaveUp
}

// submitOrKeep submits a job, after those of its pool that wait in the spool;
// where the broker is away it joins them.
func (g *globals) submitOrKeep(ctx context.Context, o *jobFlags, job client.Job, pool config.Found, sp spool.Spool) (id string, err error) {
	if err := job.Check(pool.Name, o.sender); err != nil {
		return "", err
	}
	if job.ID, err = client.NewID(); err != nil {
		return "", err
	}
	e := spool.Entry{
		ID: job.ID, Pool: pool.Name, Command: job.Command, Words: job.Words, Key: job.Key,
		InOrder: job.InOrder, Force: job.Force, Expires: job.Expires, Sender: o.sender, Kept: time.Now().UTC().Truncate(time.Millisecond),
	}
	for _, a := range job.Args {
		e.Args = append(e.Args, spool.Arg(a))
	}
	if o.file != "" {
		if e.Config, err = filepath.Abs(o.file); err != nil {
			return "", err
		}
	}
	id = job.ID
	if pool.Name != "" {
		id = cbsdmq.PrintedID(pool.Name, job.ID)
	}
	lockCtx, cancel := context.WithTimeout(ctx, spoolWait)
	defer cancel()
	unlock, err := sp.Lock(lockCtx)
	if err == nil {
		defer unlock()
		if _, _, err = g.sendKept(ctx, sp, pool, e.Config); err == nil {
			err = g.sendEntry(ctx, pool, e)
		}
	} else if cbsdmq.CodeOf(err) == cbsdmq.CodeHeld {
		err = cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "%w", err) // it goes behind what is being sent
	}
	if err == nil || !away(err) {
		return id, err
	}
	if kept := sp.Add(e); kept != nil {
		return "", errors.Join(err, kept)
	}
	warn(g.stderr, "%v", err)
	warn(g.stderr, "the job is kept in %s: the next `cbsdmq submit --spool` sends it, or `cbsdmq spool send`", sp.Dir())
	return id, nil
}

// sendKept sends what waits for a pool, in its order, and says so; stay counts
// what was refused and stays, while the others go on. An error of the broker ends it.
func (g *globals) sendKept(ctx context.Context, sp spool.Spool, pool config.Found, file string) (sent []spool.Entry, stay int, err error) {
	all, err := sp.List()
	printError(g.stderr, err)
	var s *session
	var sender string
	defer func() {
		if s != nil {
			s.Close()
		}
	}()
	for _, e := range all {
		if e.Pool != pool.Name || e.Pool == "" && e.Config != file {
			continue
		}
		if e.Expired(time.Now()) {
			warn(g.stderr, "%s %s expired at %s and was not sent: it is dropped", printedEntry(e), e.Command, moment(e.Expires))
			if err := sp.Remove(e.ID); err != nil {
				return sent, stay, err
			}
			continue
		}
		if s != nil && sender != e.Sender { // a session has one
			s.Close()
			s = nil
		}
		if s == nil {
			if s, err = g.dial(ctx, pool, client.Options{Sender: e.Sender, ConnectTimeout: spoolWait}); err != nil {
				return sent, stay, err
			}
			sender = e.Sender
		}
		if _, err := s.Submit(ctx, jobOfEntry(e)); err != nil {
			if away(err) {
				return sent, stay, err
			}
			printError(g.stderr, fmt.Errorf("%s cannot be sent and stays in the spool: %w", e.ID, err))
			stay++
			continue
		}
		if err := sp.Remove(e.ID); err != nil {
			return sent, stay, err
		}
		sent = append(sent, e)
	}
	return sent, stay, nil
}

func (g *globals) sendEntry(ctx context.Context, pool config.Found, e spool.Entry) error {
	s, err := g.dial(ctx, pool, client.Options{Sender: e.Sender, ConnectTimeout: spoolWait})
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Submit(ctx, jobOfEntry(e))
	return err
}

func jobOfEntry(e spool.Entry) client.Job {
	job := client.Job{ID: e.ID, Command: e.Command, Words: e.Words, Key: e.Key, InOrder: e.InOrder, Force: e.Force, Expires: e.Expires}
	for _, a := range e.Args {
		job.Args = append(job.Args, cbsdmq.Arg(a))
	}
	return job
}

func newSpoolCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "spool",
		Short: "Send, list or drop jobs that are kept on this machine",
		Long: `Jobs that ` + "`cbsdmq submit --spool`" + ` could not give to a broker are kept on this
machine: in --spool-dir, else ` + spoolEnv + `, else cbsdmq/spool below the user's
state directory (XDG_STATE_HOME, ~/.local/state). At most 1000, each in a file of
its own that only the user can read. They are sent in the order of their ids,
under the same id each time, so that each runs once. The agent refuses those that
are older than its id_memory, 30 days.`,
		Example: `  cbsdmq spool list
  cbsdmq spool send
  cbsdmq spool drop pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G`,
	}
	cmd.AddCommand(newSpoolSendCommand(g), newSpoolListCommand(g), newSpoolDropCommand(g))
	return cmd
}

func newSpoolSendCommand(g *globals) *cobra.Command {
	var f spoolFlags
	cmd := &cobra.Command{
		Use:   "send [POOL]",
		Short: "Send what is kept, of all pools or of one",
		Long: `Send the jobs that are kept, those of each pool in their order. Those that have
expired are told and dropped. Exit status 75 where some could not be sent and stay.
Nothing to send is no failure; a POOL that does not exist is one.`,
		Example:           "  cbsdmq spool send\n  cbsdmq spool send pool1",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if len(args) > 0 {
				if pool, _, err := cbsdmq.SplitID(args[0]); err == nil {
					return usage("%s is a job, and those of a pool are sent together: name the pool, %s", args[0], pool)
				}
			}
			sp, err := f.open()
			if err != nil {
				return err
			}
			lockCtx, cancel := context.WithTimeout(ctx, spoolWait)
			defer cancel()
			unlock, err := sp.Lock(lockCtx)
			if err != nil {
				return err
			}
			defer unlock()
			all, err := sp.List()
			if len(all) == 0 && err != nil {
				return err
			}
			if len(args) > 0 && !slices.ContainsFunc(all, func(e spool.Entry) bool { return e.Pool == args[0] }) {
				if _, unknown := g.named(args[0]); unknown != nil { // mistyped, rather than nothing to send
					return errors.Join(err, unknown)
				}
			}
			failed := false
			type queue struct{ pool, file string }
			done := make(map[queue]bool)
			for _, e := range all {
				q := queue{pool: e.Pool}
				if e.Pool == "" { // its file does not tell it
					q.file = e.Config
				}
				if done[q] || len(args) > 0 && e.Pool != args[0] {
					continue
				}
				done[q] = true
				sent, stay, err := g.sendQueue(ctx, sp, e)
				for _, e := range sent {
					if err := g.sayEntry(e, "sent"); err != nil {
						return err
					}
				}
				printError(g.stderr, err)
				failed = failed || stay > 0 || err != nil
			}
			if failed {
				return exit(cbsdmq.ExitGaveUp)
			}
			return nil
		},
	}
	f.flags(cmd)
	return cmd
}

// sendQueue sends what waits for the pool of e.
func (g *globals) sendQueue(ctx context.Context, sp spool.Spool, e spool.Entry) (sent []spool.Entry, stay int, err error) {
	var pool config.Found
	if e.Config != "" {
		pool, err = g.load(e.Config)
	} else {
		pool, err = g.named(e.Pool)
	}
	if err == nil && pool.Name != e.Pool {
		err = cbsdmq.Errorf(cbsdmq.CodeBadConfig, "pool", "%s is of pool %q now, the jobs are for %q", e.Config, pool.Name, e.Pool)
	}
	if err != nil {
		return nil, 0, err
	}
	return g.sendKept(ctx, sp, pool, e.Config)
}

func newSpoolListCommand(g *globals) *cobra.Command {
	var f spoolFlags
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List what is kept on this machine",
		Example: "  cbsdmq spool list\n  cbsdmq spool list -o json | jq -r .id",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			sp, err := f.open()
			if err != nil {
				return err
			}
			all, err := sp.List()
			rows := make([][]string, 0, len(all))
			for _, e := range all {
				if g.json() {
					if err := g.sayEntry(e, "kept"); err != nil {
						return err
					}
					continue
				}
				state := moment(e.Expires)
				if e.Expired(time.Now()) {
					state += " (over)"
				}
				rows = append(rows, []string{printedEntry(e), e.Command, oneLine(strings.Join(shownArgs(jobOfEntry(e)), " ")), oneLine(e.Sender), moment(e.Kept), state})
			}
			if g.json() {
				return err
			}
			return errors.Join(table(g.stdout, []string{"ID", "COMMAND", "ARGS", "SENDER", "KEPT", "EXPIRES"}, rows), err)
		},
	}
	f.flags(cmd)
	return cmd
}

func newSpoolDropCommand(g *globals) *cobra.Command {
	var f spoolFlags
	var all bool
	cmd := &cobra.Command{
		Use:     "drop ID ... | --all",
		Short:   "Forget jobs that are kept on this machine",
		Long:    `Forget jobs that are kept on this machine. They are not sent any more.`,
		Example: "  cbsdmq spool drop pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G\n  cbsdmq spool drop --all",
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) (ids []cobra.Completion, _ cobra.ShellCompDirective) {
			if sp, err := f.open(); err == nil {
				kept, _ := sp.List() // what can be read of it
				for _, e := range kept {
					if id := printedEntry(e); !slices.Contains(args, id) {
						ids = append(ids, cobra.CompletionWithDesc(id, e.Command))
					}
				}
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usage("name the jobs by their IDs, or say --all")
			}
			sp, err := f.open()
			if err != nil {
				return err
			}
			lockCtx, cancel := context.WithTimeout(cmd.Context(), spoolWait)
			defer cancel()
			unlock, err := sp.Lock(lockCtx)
			if err != nil {
				return err
			}
			defer unlock()
			kept, err := sp.List()
			if !all && len(kept) == 0 && err != nil {
				return err
			}
			for _, id := range args {
				if !slices.ContainsFunc(kept, func(e spool.Entry) bool { return e.ID == id || printedEntry(e) == id }) {
					return cbsdmq.Errorf(cbsdmq.CodeNotFound, "ID", "%s is not in the spool %s", id, sp.Dir()).
						WithHint("`cbsdmq spool list` shows what is")
				}
			}
			for _, e := range kept {
				if !all && !slices.Contains(args, e.ID) && !slices.Contains(args, printedEntry(e)) {
					continue
				}
				if err := sp.Remove(e.ID); err != nil {
					return err
				}
				if err := g.sayEntry(e, "dropped"); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all of them")
	return cmd
}

// sayEntry says what became of a job.
func (g *globals) sayEntry(e spool.Entry, what string) error {
	if !g.json() {
		_, err := fmt.Fprintln(g.stdout, printedEntry(e), what)
		return err
	}
	return g.print(struct {
		ID      string    `json:"id"`
		Pool    string    `json:"pool"`
		Command string    `json:"command"`
		Args    []string  `json:"args"`
		Sender  string    `json:"sender"`
		Kept    time.Time `json:"kept_at"`
		Expires time.Time `json:"expires,omitzero"`
		State   string    `json:"state"` // kept, sent, dropped
	}{printedEntry(e), e.Pool, e.Command, shownArgs(jobOfEntry(e)), e.Sender, e.Kept, e.Expires, what})
}

func printedEntry(e spool.Entry) string {
	if e.Pool == "" {
		return e.ID
	}
	return cbsdmq.PrintedID(e.Pool, e.ID)
}
