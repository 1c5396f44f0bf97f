package main

import (
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/runner"
)

func newRunnerCommand(g *globals) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "runner",
		Short: "Start commands and outlive the agent",
		Long: `Start commands for the agents of this host, keep their output and exit status,
and outlive the agents. An agent starts a runner where none runs; as a service
of its own it is there before the agents, and a restart of an agent leaves it
alone.

SIGTERM ends it. Commands go on, but nobody will learn their exit status: their
jobs end as unknown. So stop it only when nothing runs.`,
		Example: `  cbsdmq runner
  cbsdmq runner --dir /var/db/cbsdmq/run`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			dir, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			return runner.Serve(ctx, runner.Config{
				Dir: dir, Version: version, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
			})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", filepath.Join(config.DefaultState, "run"), "`directory` of its socket, log and output files: run_dir of the pools")
	return cmd
}
