package main

import (
	"context"
	"errors"
	"os/signal"
	"strings"
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
	broker string // kind
	uri    string
}

func newDemoCommand(g *globals) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it all on this machine, with simulated CBSD",
		Long: `Run everything on this machine: an embedded broker, two pools with simulated
CBSD, an agent for each, and a tour of jobs, said in plain words. It takes half a
minute, needs no root, and leaves nothing behind.

With --broker the jobs go over another kind of broker, at --uri where it is a
server that you run. They go over tubes of their own, ` + demoTubes + `..., and
touch no others.

With --real the pool is a real CBSD workdir. Then it only lists and reads, unless
--change lets it create and remove a jail of its own, ` + demoJail + `. Interrupted in
between, it leaves that jail.`,
		Example: `  cbsdmq demo
  cbsdmq demo --keep
  cbsdmq demo --broker rabbitmq --uri amqp://cbsd:SECRET@127.0.0.1
  cbsdmq demo --broker zeromq
  cbsdmq demo --real /usr/jails`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.change && o.real == "" {
				return usage("--change: only with --real")
			}
			broker, err := newDemoBroker(o.broker, o.uri)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			limited, cancel := context.WithTimeout(ctx, demoLimit)
			defer cancel()
			err = demo(limited, g, o, broker)
			if ctx.Err() != nil {
				warn(g.stderr, "interrupted; what was started has been ended")
				return exit(cbsdmq.ExitCancelled)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.keep, "keep", false, "leave the directory with the pools, logs and journals")
	f.StringVar(&o.broker, "broker", "nats", "`kind` of broker: "+strings.Join(config.Kinds(), ", "))
	f.StringVar(&o.uri, "uri", "", "`address` of the broker; default where it usually is, for nats one that the demo brings")
	f.StringVar(&o.real, "real", "", "use the real CBSD with this `workdir`")
	f.BoolVar(&o.change, "change", false, "with --real: create and remove a jail")
	f.StringVar(&o.cbsd, "cbsd", config.DefaultCBSD, "with --real: `path` of the cbsd command")
	return cmd
}

// demo builds the stage, plays on it, and clears it away whatever happens.
func demo(ctx context.Context, g *globals, o demoOptions, broker demoBroker) (err error) {
	s, err := newStage(g, o.keep, broker)
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
