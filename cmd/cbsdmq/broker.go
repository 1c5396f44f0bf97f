package main

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq/bus/nats"
)

func newBrokerCommand(g *globals) *cobra.Command {
	var cfg nats.EmbeddedConfig
	cmd := &cobra.Command{
		Use:   "broker",
		Short: "Run the embedded broker as a process of its own",
		Long: `Run the embedded broker, a NATS server with JetStream that syncs each message to
disk before it confirms it.

Pools with "uri": "embedded" and the same embedded_dir use it. Without it, the
first of their agents runs the broker inside its own process, and it ends with
that agent.`,
		Example: `  cbsdmq broker
  cbsdmq broker --dir /var/db/cbsdmq/nats --listen 127.0.0.1:4222`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
			b, err := nats.StartEmbedded(ctx, cfg)
			if err != nil {
				return err
			}
			cfg.Log.Info("the broker is ready", "addr", b.Addr(), "dir", cfg.Dir)
			<-ctx.Done()
			return b.Close()
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Dir, "dir", nats.DefaultEmbeddedDir, "`directory` of its messages and its token: embedded_dir of the pools")
	f.StringVar(&cfg.Listen, "listen", nats.DefaultEmbeddedListen, "`host:port` to listen on")
	return cmd
}
