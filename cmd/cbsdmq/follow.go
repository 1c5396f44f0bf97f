package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
)

func newFollowCommand(g *globals) *cobra.Command {
	var t target
	var from int64
	var progress bool
	cmd := &cobra.Command{
		Use:   "follow ID",
		Short: "Print a job's output as it comes, from its beginning",
		Long: `Print the output of a job from its beginning, wait for its end, and exit as run
does, showing how far it is as run does. Any number of people can follow a job, from any machine, until what is
known of it is dropped.`,
		Example: `  cbsdmq follow pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G
  cbsdmq follow --from 4096 pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G
  cbsdmq follow -o json --progress pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G
  cbsdmq follow -o json pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeJob,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			s, err := g.openJob(ctx, &t, args[0])
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.arrived(ctx, args[0]); err != nil {
				return err
			}
			w := &watch{g: g, s: s, id: args[0], have: from, progress: progress && g.json()}
			defer w.listen()()
			final, err := w.run(ctx, progress || !g.json())
			if err != nil {
				return err
			}
			if final.State == cbsdmq.Unknown {
				g.sayVerdict(ctx, s, args[0])
			}
			return g.finish(args[0], final, true)
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&progress, "progress", false, "with -o json: print how far the job is, too")
	cmd.Flags().Int64Var(&from, "from", 0, "begin after so many `bytes` of the output")
	return cmd
}

// sayVerdict says what a person found out about a job that ended unknown.
func (g *globals) sayVerdict(ctx context.Context, s *session, id string) {
	if j, _, err := s.Job(ctx, id); err == nil && j.Verdict != nil {
		warn(g.stderr, "settled: %s", verdictOf(j))
	}
}
