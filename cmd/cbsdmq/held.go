package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
)

// maxHeld bounds how many held jobs are counted.
const maxHeld = 10000

func newHeldCommand(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "held",
		Short: "Release or drop the jobs held after a rollback",
		Long: `When a pool's journal went back in time (zfs rollback, a restore, a copy of the
pool) its queued jobs are held: some of them may have run since. Look at them,
then let them run or end them.`,
		Example: `  cbsdmq jobs --state held pool1
  cbsdmq held release pool1
  cbsdmq held drop pool1`,
	}
	cmd.AddCommand(
		g.heldAction("release", "released", "Let the held jobs run", "They run as if they had just come, in their order."),
		g.heldAction("drop", "dropped", "End the held jobs as cancelled", "They end cancelled and never run."),
	)
	return cmd
}

func (g *globals) heldAction(action, past, short, long string) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:               action + " POOL",
		Short:             short,
		Long:              short + ". " + long,
		Example:           "  cbsdmq held " + action + " pool1",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			pool, err := t.poolAlone(g, args)
			if err != nil {
				return err
			}
			s, err := g.open(ctx, pool, &t)
			if err != nil {
				return err
			}
			defer s.Close()
			jobs, err := s.Jobs(ctx, maxHeld, cbsdmq.Held)
			if err != nil {
				return err
			}
			if err := s.Held(ctx, action); err != nil {
				return err
			}
			if g.json() {
				return g.print(map[string]any{"pool": pool.Name, past: len(jobs)})
			}
			_, err = fmt.Fprintf(g.stdout, "%d jobs %s\n", len(jobs), past)
			return err
		},
	}
	t.flags(cmd)
	return cmd
}
