package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
)

func newSubmitCommand(g *globals) *cobra.Command {
	var o jobFlags
	var f spoolFlags
	var keep bool
	cmd := &cobra.Command{
		Use:   "submit [POOL] COMMAND [word | key=value ...]",
		Short: "Submit a command and print the job's id",
		Long: `Submit a command of cbsd to a pool and print the job's id when the broker has
confirmed it. The agent need not be there.

POOL may be left out as for run; then all agents have to be there.

Where the broker cannot be reached the exit status is 75: the job can be submitted
later. With --spool it is kept on this machine then (see ` + "`cbsdmq spool --help`" + `),
and the exit status is 0; the next submit --spool sends it under the same id, before
its own. --expires bounds how long it waits.`,
		Example: `  cbsdmq submit pool1 bstart jname=vm1
  cbsdmq submit --spool --expires 10m pool1 bstart jname=vm1
  cbsdmq submit --key backup-2026-11-22 pool1 bexport jname=vm1
  id=$(cbsdmq submit pool1 jstart jname=www) && cbsdmq follow $id`,
		ValidArgsFunction: g.completeCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := o.within(cmd.Context())
			defer cancel()
			pool, args, err := o.poolOfJob(ctx, g, args)
			if err != nil {
				return err
			}
			job, err := o.job(args)
			if err != nil {
				return err
			}
			id, err := g.submitOnly(ctx, &o, job, pool, keep, &f)
			if err != nil {
				return err
			}
			if g.json() {
				return asSubmitted(id, g.print(struct {
					ID   string `json:"id"`
					Pool string `json:"pool"`
				}{id, pool.Name}))
			}
			_, err = fmt.Fprintln(g.stdout, id)
			return asSubmitted(id, err)
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&keep, "spool", false, "keep the job on this machine while the broker cannot be reached")
	f.flags(cmd)
	return cmd
}

// asSubmitted tells the id of a job where it could not be printed: whoever took
// the job for not submitted would submit it again.
func asSubmitted(id string, err error) error {
	if err != nil {
		err = errors.Join(err, fmt.Errorf("the job was submitted all the same: its id is %s", id))
	}
	return err
}

// submitOnly submits a job and does not wait for it.
func (g *globals) submitOnly(ctx context.Context, o *jobFlags, job client.Job, pool config.Found, keep bool, f *spoolFlags) (string, error) {
	if keep {
		sp, err := f.open()
		if err != nil {
			return "", err
		}
		return g.submitOrKeep(ctx, o, job, pool, sp)
	}
	s, id, err := g.submit(ctx, o, job, 0, pool)
	if cbsdmq.CodeOf(err) == cbsdmq.CodeUnreachable {
		later := cbsdmq.Errorf(cbsdmq.CodeUnreachable, "", "nothing was submitted").
			WithHint("submit it later; with --spool it is kept on this machine until then")
		return "", &exitError{status: cbsdmq.ExitGaveUp, err: errors.Join(err, later)}
	}
	if err != nil {
		return "", err
	}
	s.Close()
	return id, nil
}

// submit opens a session and submits a job; Ctrl-C before the broker has
// confirmed it leaves it in doubt. accept 0 waits for ever.
func (g *globals) submit(ctx context.Context, o *jobFlags, job client.Job, accept timeFlag, pool config.Found) (*session, string, error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	limit := time.Duration(accept)
	if limit == 0 {
		limit = -1
	}
	s, err := g.dial(ctx, pool, client.Options{Sender: o.sender, AcceptTimeout: limit, Log: g.log()})
	if err != nil {
		return nil, "", err
	}
	id, err := s.Submit(ctx, job)
	if err != nil {
		s.Close()
		if id != "" {
			err = errors.Join(err, fmt.Errorf("its id is %s", id))
		}
		return nil, "", err
	}
	return s, id, nil
}
