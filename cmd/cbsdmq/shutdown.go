package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
)

// shutdownRest is what is left of the time of a shutdown for the rest of it.
const shutdownRest = 15 * time.Second

// shutdownBegin is how long a stop may wait for its begin where no --timeout says
// it. One that was left on the tube would stop the guest after the next boot.
const shutdownBegin = 5 * time.Minute

func newShutdownCommand(g *globals) *cobra.Command {
	var t target
	var onlyBoot bool
	cmd := &cobra.Command{
		Use:   "shutdown POOL",
		Short: "Stop the guests of a pool, in the reverse of their order at a boot",
		Long: `Stop all guests of a pool that run, by jobs for its agent, in the reverse of the
order in which they start after a boot: b_order, VMs before jails. Run it on the
pool's host, while the agent serves. service cbsdmq does so when the host is shut
down, for pools with "boot": "start". A stop that has not begun when --timeout is
over, else within 5 minutes, is not done later.

Exit status: 1 if a guest did not stop.`,
		Example: `  cbsdmq shutdown pool1
  cbsdmq shutdown --timeout 75s pool1
  cbsdmq shutdown --boot --config /usr/local/etc/cbsdmq/pool1.json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			pool, err := t.poolAlone(g, args)
			if err != nil {
				return err
			}
			if onlyBoot && pool.Config.Boot != config.BootStart {
				return nil
			}
			return g.stopGuests(ctx, pool)
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&onlyBoot, "boot", false, `do nothing unless the pool's file says "boot": "start"`)
	return cmd
}

// stopGuests stops what runs, one group after the other.
func (g *globals) stopGuests(ctx context.Context, pool config.Found) error {
	if err := pool.Config.ValidateAgent(); err != nil {
		return err
	}
	env, err := openCBSD(ctx, pool.Config, g.log())
	if err != nil {
		return err
	}
	defer env.Close()
	guests, err := env.BootOrder(ctx)
	if err != nil {
		return err
	}
	guests = slices.DeleteFunc(guests, func(b cbsd.BootGuest) bool { return !b.Running })
	if len(guests) == 0 {
		return nil
	}
	s, err := g.dial(ctx, pool, client.Options{Sender: "shutdown", Log: g.log()})
	if err != nil {
		return err
	}
	defer s.Close()
	slices.Reverse(guests)
	all, err := env.Guests(ctx)
	if err != nil {
		return err
	}
	for _, one := range all {
		if agent.Carries(one, s.bus.Addr()) {
			warn(g.stderr, "%s carries the broker: it is left to the host", one.Name)
			guests = slices.DeleteFunc(guests, func(b cbsd.BootGuest) bool { return b.Name == one.Name })
		}
	}
	var failed error
	for len(guests) > 0 && ctx.Err() == nil {
		n := 1
		for n < len(guests) && guests[n].Group == guests[0].Group {
			n++
		}
		failed = errors.Join(failed, g.stopGroup(ctx, s, guests[:n]))
		guests = guests[n:]
	}
	return errors.Join(failed, context.Cause(ctx))
}

func (g *globals) stopGroup(ctx context.Context, s *session, guests []cbsd.BootGuest) error {
	expires, ok := ctx.Deadline()
	if !ok {
		expires = time.Now().Add(shutdownBegin)
	}
	expires = expires.UTC().Truncate(time.Second)
	var wg sync.WaitGroup
	errs := make([]error, len(guests))
	for i, guest := range guests {
		wg.Go(func() {
			reply, err := s.Run(ctx, client.Job{Command: guest.Stop, Args: []cbsdmq.Arg{{Name: "jname", Value: guest.Name}}, Expires: expires}, nil)
			if err == nil && reply.State != cbsdmq.Done {
				err = fmt.Errorf("%s: %s", reply.State, reply.Reason)
			}
			if err != nil {
				errs[i] = fmt.Errorf("%s %s: %w", guest.Stop, guest.Name, err)
			}
		})
	}
	wg.Wait()
	for i, guest := range guests {
		if errs[i] == nil {
			if _, err := fmt.Fprintf(g.stdout, "%s stopped\n", guest.Name); err != nil {
				return err
			}
		}
	}
	return errors.Join(errs...)
}
