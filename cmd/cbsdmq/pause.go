package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
)

func newPauseCommand(g *globals) *cobra.Command {
	var t target
	var reason string
	cmd := &cobra.Command{
		Use:   "pause POOL | GUEST | POOL GUEST",
		Short: "Begin nothing that changes a guest, or a whole pool",
		Long: `Keep everything that changes a guest, or anything in a pool, from being begun
until ` + "`cbsdmq resume`" + `. Jobs are accepted and wait in their order; those that expire
do so. What runs already goes on to its end, and commands that only read (jls,
bget, ...) run as ever. A pause is kept in the pool's journal: it survives
restarts of the agent and of the host. It binds jobs only: cbsd in a shell on the
host does what it is told.

A name alone is looked for among the pools and the guests of all pools. Who pauses
what is paused already changes the reason.`,
		Example: `  cbsdmq pause web7 --reason "disk swap"
  cbsdmq pause pool1 --reason maintenance
  cbsdmq pause pool1 web7
  cbsdmq resume web7`,
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: g.completeSubject,
		RunE: func(cmd *cobra.Command, args []string) error {
			what, err := t.onSubject(cmd.Context(), g, "pause", args, nil, func(ctx context.Context, s *session, what subject) error {
				return s.Pause(ctx, what.guest, reason)
			})
			if err != nil {
				return err
			}
			if g.json() {
				return g.print(cbsdmq.Pause{Pool: what.pool.Name, Guest: what.guest, Reason: reason, By: t.who()})
			}
			_, err = fmt.Fprintf(g.stdout, "%s is paused\n", what)
			return err
		},
	}
	t.flags(cmd)
	t.senderFlag(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, for others who look: `text` on one line")
	return cmd
}

// onSubject does something to the guest or the pool that args name, in a session with
// its agent.
func (t *target) onSubject(ctx context.Context, g *globals, command string, args []string,
	also func(context.Context, *session, string) (bool, error), do func(context.Context, *session, subject) error,
) (subject, error) {
	ctx, cancel := t.within(ctx)
	defer cancel()
	what, err := t.subject(ctx, g, command, args, also)
	if err != nil {
		return what, err
	}
	s, err := g.open(ctx, what.pool, t)
	if err != nil {
		return what, err
	}
	defer s.Close()
	return what, do(ctx, s, what)
}

func newResumeCommand(g *globals) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "resume POOL | GUEST | POOL GUEST",
		Short: "End a pause: what waits is begun, in its order",
		Long: `End a pause of a guest or of a pool: what waits is begun, in its order. Guests of
a pool that are paused by themselves stay so when the pool is resumed.`,
		Example: `  cbsdmq resume web7
  cbsdmq resume pool1`,
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: g.completeSubject,
		RunE: func(cmd *cobra.Command, args []string) error {
			what, err := t.onSubject(cmd.Context(), g, "resume", args, isPaused, func(ctx context.Context, s *session, what subject) error {
				return s.Resume(ctx, what.guest)
			})
			if err != nil {
				return err
			}
			if g.json() {
				return g.print(struct {
					Pool  string `json:"pool"`
					Guest string `json:"guest"`
				}{what.pool.Name, what.guest})
			}
			_, err = fmt.Fprintf(g.stdout, "%s goes on\n", what)
			return err
		},
	}
	t.flags(cmd)
	t.senderFlag(cmd)
	return cmd
}

// isPaused finds guests that are paused and were removed since by hand.
func isPaused(ctx context.Context, s *session, guest string) (bool, error) {
	pauses, err := s.Pauses(ctx)
	for _, p := range pauses {
		if p.Guest == guest && guest != "" {
			return true, nil
		}
	}
	if cbsdmq.CodeOf(err) == cbsdmq.CodeRefused {
		return false, nil // an older agent pauses nothing
	}
	return false, err
}
