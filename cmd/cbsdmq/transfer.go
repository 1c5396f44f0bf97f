package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
)

func newTransferCommand(g *globals) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "transfer GUEST POOL1 POOL2",
		Short: "Move a guest to another pool of the same host",
		Long: `Move a guest that is off from POOL1 to POOL2, two pools of one host: it is taken
out of the tables of POOL1, its files are copied and compared, it is registered in
POOL2, and looked at there. Only then it is removed from POOL1. Where something
goes wrong before, or the job is cancelled, all is put back.

Two jobs do it: cbsdmq-transfer in POOL1, and cbsdmq-hold in POOL2, which keeps the
name free there. So no other job works on the guest in either pool. After a crash at
any point the same command goes on. Where both pools are on ZFS, its datasets are sent
with their snapshots; where one of them is, the guest is refused.`,
		Example: `  cbsdmq run pool1 bstop jname=web7 && cbsdmq transfer web7 pool1 pool2`,
		Args:    cobra.ExactArgs(3),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return g.guestNames(config.Find(g.places()).Found), cobra.ShellCompDirectiveNoFileComp
			case 1, 2:
				return g.completePool(cmd, nil, begun)
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			return g.transfer(ctx, &t, args[0], args[1], args[2])
		},
	}
	cmd.Flags().Var(&t.limit, "timeout", "give up after this time; 0 never does")
	return cmd
}

// A transferSide is one pool of a transfer.
type transferSide struct {
	s     *session
	store cbsdmq.Store
}

func (g *globals) side(ctx context.Context, t *target, name string) (transferSide, error) {
	pool, err := g.named(name)
	if err != nil {
		return transferSide{}, err
	}
	s, err := g.open(ctx, pool, t)
	if err != nil {
		return transferSide{}, err
	}
	store, _, err := s.Images(ctx)
	if err != nil {
		s.Close()
		return transferSide{}, fmt.Errorf("pool %s: %w", name, err)
	}
	return transferSide{s, store}, nil
}

func (g *globals) transfer(ctx context.Context, t *target, guest, from, to string) error {
	if from == to {
		return usage("POOL2 is POOL1")
	}
	t.sender = who()
	source, err := g.side(ctx, t, from)
	if err != nil {
		return err
	}
	defer source.s.Close()
	other, err := g.side(ctx, t, to)
	if err != nil {
		return err
	}
	defer other.s.Close()
	if source.store.Host != other.store.Host {
		return cbsdmq.Errorf(cbsdmq.CodeRefused, "POOL2", "%s and %s are not on one host", from, to).
			WithHint("export the guest, copy the image, and import it: bexport, bimport")
	}
	hold, err := g.beginHold(ctx, other, guest, source.store.Dir)
	if err != nil {
		return err
	}
	w := &watch{g: g, s: source.s}
	defer w.listen()()
	w.id, err = source.s.Submit(ctx, client.Job{Command: cbsd.MoveGuest, Stream: !g.json(), Args: []cbsdmq.Arg{
		{Name: "jname", Value: guest}, {Name: "to", Value: other.store.Dir},
	}})
	var final cbsdmq.Reply
	if err == nil {
		final, err = w.run(ctx, !g.json())
	}
	if err != nil {
		return err
	}
	if final.State == cbsdmq.Refused || final.State == cbsdmq.Cancelled || final.ErrCode != 0 {
		// It may not have come so far that the other side has seen it.
		if err := other.s.Cancel(ctx, hold); err != nil && cbsdmq.CodeOf(err) != cbsdmq.CodeNotFound {
			warn(g.stderr, "job %s may still wait: %v", hold, err)
		}
	}
	return g.finish(w.id, final, true)
}

// beginHold submits the job that keeps the name of the guest free, and waits
// until it runs.
func (g *globals) beginHold(ctx context.Context, side transferSide, guest, from string) (id string, err error) {
	id, err = side.s.Submit(ctx, client.Job{Command: cbsd.HoldGuest, Args: []cbsdmq.Arg{{Name: "jname", Value: guest}, {Name: "from", Value: from}}})
	if err != nil {
		return id, err
	}
	if err := side.s.arrived(ctx, id); err != nil {
		return id, err
	}
	for said := false; ; {
		j, final, err := side.s.Job(ctx, id)
		switch {
		case err != nil:
			return id, err
		case final != nil:
			return id, &cbsdmq.Error{Code: cbsdmq.CodeRefused, Err: errors.New(cmp.Or(final.Reason, string(final.State))), Hint: final.Hint}
		case j.State == cbsdmq.Running:
			return id, nil
		}
		if !said {
			warn(g.stderr, "waiting for the jobs before it on %s in %s", guest, j.Pool)
			said = true
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			_ = side.s.Cancel(context.WithoutCancel(ctx), id) // it ends by itself, later
			return id, context.Cause(ctx)
		}
	}
}
