package main

import (
	"github.com/spf13/cobra"
)

func newOutputCommand(g *globals) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "output ID",
		Short: "Print a job's output so far",
		Long: `Print all output that is kept of a job, whether it has ended or not, and do not
wait for more.`,
		Example: `  cbsdmq output pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G
  cbsdmq output pool1/01K9ZQ6V4S8H2M0W3C5D7E9F1G | tail`,
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
			dropped, err := s.Output(ctx, args[0], g.stdout)
			if dropped > 0 {
				warn(g.stderr, "%d bytes of the output were not kept", dropped)
			}
			return err
		},
	}
	t.flags(cmd)
	return cmd
}
