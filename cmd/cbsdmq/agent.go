package main

import (
	"github.com/spf13/cobra"
)

func newAgentCommand(g *globals) *cobra.Command {
	var o agentOptions
	cmd := &cobra.Command{
		Use:   "agent --config FILE [--config FILE ...]",
		Short: "Serve one pool or several",
		Long: `Serve pools: take jobs from each pool's tube, run them with cbsd, and answer.

Commands are started by the runner and go on when the agent ends, is killed or
is upgraded; the next agent adopts them. Where no runner runs the agent starts
one, with --await-runner it waits: for that of a service, which would find its
place taken.

SIGTERM and SIGINT end the agent at once, with --wait after the commands that
run. SIGHUP reads the configuration again and opens the log anew; a bad file
keeps the old configuration.`,
		Example: `  cbsdmq check --config /usr/local/etc/cbsdmq/pool1.json
  cbsdmq agent --config /usr/local/etc/cbsdmq/pool1.json
  cbsdmq agent --config pool1.json --config pool2.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return asAgent(serveAgent(cmd.Context(), o)) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.Configs, "config", "c", nil, "configuration `file` of a pool; may be given several times")
	f.StringVar(&o.CBSDEnv, "cbsdenv", "", "workdir of the pool, where the file names none")
	f.StringVar(&o.Broker, "broker", "", "section of the broker, where the file names none")
	f.BoolVar(&o.Wait, "wait", false, "at the end wait for the commands that run")
	f.BoolVar(&o.AwaitRunner, "await-runner", false, "start no runner, wait for that of the service")
	_ = cmd.MarkFlagRequired("config") // the flag exists
	return cmd
}
