package main

import (
	"context"
	"errors"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/config"
)

// demoLimit ends a demo that hangs.
const demoLimit = 3 * time.Minute

// demoOptions are the flags of `cbsdmq demo`.
type demoOptions struct {
	keep   bool
	real   string // workdir of a real CBSD
	change bool
	cbsd   string
}

func newDemoCommand(g *globals) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it all on this machine, with simulated CBSD",
		Long: `Run everything on this machine: an embedded broker, two pools with simulated
CBSD, an agent for each, and a tour of jobs, said in plain words. It takes half a
minute, needs no root, and leaves nothing behind.

With --real the pool is a real CBSD workdir. Then it only lists and reads, unless
--change lets it create and remove a jail of its own, ` + demoJail + `. Interrupted in
between, it leaves that jail.`,
		Example: `  cbsdmq demo
  cbsdmq demo --keep
  cbsdmq demo --real /usr/jails`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.change && o.real == "" {
				return usage("--change: only with --real")
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			limited, cancel := context.WithTimeout(ctx, demoLimit)
			defer cancel()
			err := demo(limited, g, o)
			if ctx.Err() != nil {
				warn(g.stderr, "interrupted; what was started has been ended")
				return exit(cbsdmq.ExitCancelled)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.keep, "keep", false, "leave the directory with the pools, logs and journals")
	f.StringVar(&o.real, "real", "", "use the real CBSD with this `workdir`")
	f.BoolVar(&o.change, "change", false, "with --real: create and remove a jail")
	f.StringVar(&o.cbsd, "cbsd", config.DefaultCBSD, "with --real: `path` of the cbsd command")
	return cmd
}

// demo builds the stage, plays on it, and clears it away whatever happens.
func demo(ctx context.Context, g *globals, o demoOptions) (err error) {
	s, err := newStage(g, o.keep)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && ctx.Err() == nil {
			s.showLogs()
		}
		err = errors.Join(err, s.close())
	}()
	if o.real != "" {
		return s.realTour(ctx, o)
	}
	return s.tour(ctx)
}
