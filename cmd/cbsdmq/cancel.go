package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
)

// cancelSoon is how long a cancel may take without a word.
const cancelSoon = time.Second

func newCancelCommand(g *globals) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "cancel ID",
		Short: "End a job, or keep it from beginning",
		Long: `End a job, and wait until it has ended; or keep it from beginning, also where the
agent does not have it yet.

A command that runs gets SIGTERM and, where it does not heed that, SIGKILL after
kill_grace. Many scripts of cbsd do not heed it: they lose the step that they are
at and go on. So the state is read when it has ended, and the reply says what is
left: "cancelled clean" (all is as it was), "cancelled, left: ..." with the command
that removes it, or "cancelled too late" (what was asked for is there).

Exit status 0 when the job was cancelled, 1 when it had ended before.`,
		Example:           `  cbsdmq cancel pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeJob,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			id := args[0]
			s, err := g.openJob(ctx, &t, id)
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.Cancel(ctx, id); err != nil {
				return err
			}
			slow := time.AfterFunc(cancelSoon, func() {
				warn(g.stderr, "SIGTERM was sent; it goes on until its step is over, or SIGKILL follows (kill_grace)")
			})
			final, err := s.Follow(ctx, id, 0, nil)
			slow.Stop()
			switch {
			case cbsdmq.CodeOf(err) == cbsdmq.CodeNotFound:
				warn(g.stderr, "the agent does not have the job yet: it ends cancelled when it comes")
				return nil
			case err != nil:
				return err
			}
			if g.json() {
				if err := g.print(reportOf(id, final)); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(g.stdout, "%s %s\n", id, final.State)
				if final.State == cbsdmq.Cancelled && final.Reason != "" {
					printError(g.stderr, &cbsdmq.Error{Err: errors.New(final.Reason), Hint: final.Hint})
				}
			}
			if final.State != cbsdmq.Cancelled {
				return cbsdmq.Errorf(cbsdmq.CodeNotFound, "", "it had ended before the signal reached it")
			}
			return nil
		},
	}
	t.flags(cmd)
	return cmd
}
