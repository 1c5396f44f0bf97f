package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus/nats"
	"github.com/cbsd/cbsdmq/config"
)

func newBrokerCommand(g *globals) *cobra.Command {
	var cfg nats.EmbeddedConfig
	var file string
	var example bool
	cmd := &cobra.Command{
		Use:   "broker [--config FILE]",
		Short: "Run the embedded broker as a process of its own, or one server of a cluster",
		Long: `Run a broker, a NATS server with JetStream whose confirmed messages are on the
disk.

Without --config it is the embedded broker. Pools with "uri": "embedded" and the
same embedded_dir use it. Without it, the first of their agents runs the broker
inside its own process, and it ends with that agent.

With --config it is one server of a cluster of three or more, on a host each.
One may be away, and be restarted, without anybody noticing more than a few
seconds of waiting. --example prints a file to begin with, every key explained.

Exit status: 78 if the configuration is bad.`,
		Example: `  cbsdmq broker
  cbsdmq broker --dir /var/db/cbsdmq/nats --listen 127.0.0.1:4222
  cbsdmq broker --example > /usr/local/etc/cbsdmq-broker.json
  cbsdmq broker --config /usr/local/etc/cbsdmq-broker.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if example {
				_, err := io.WriteString(g.stdout, config.ExampleBroker())
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
			if file != "" {
				return serveMember(ctx, file, cfg.Log)
			}
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
	f.StringVarP(&file, "config", "c", "", "configuration `file` of a server of a cluster")
	f.BoolVar(&example, "example", false, "print a configuration file of a cluster's server with every key explained")
	for _, flag := range []string{"dir", "listen", "example"} {
		cmd.MarkFlagsMutuallyExclusive("config", flag)
	}
	return cmd
}

// serveMember runs a server of a cluster until ctx ends.
func serveMember(ctx context.Context, file string, log *slog.Logger) error {
	b, err := config.LoadBroker(file)
	if err != nil {
		return err
	}
	users := make(map[string]string)
	for _, u := range b.Users {
		users[u.User] = u.Password
	}
	m, err := nats.StartMember(ctx, nats.ClusterConfig{
		Name: b.Name, Listen: b.Listen, Dir: b.Dir,
		Token: b.Token, Users: users, TLS: nats.ServerTLS(b.TLS), Include: b.Include,
		Cluster: b.Cluster.Name, Routes: b.Cluster.Routes, RouteAt: b.Cluster.Listen, Password: b.Cluster.Password,
		RouteTLS: nats.ServerTLS{Cert: b.Cluster.Cert, Key: b.Cluster.Key, CA: b.Cluster.CA},
		Log:      log,
	})
	if err != nil {
		return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "", "%s: %w", file, err)
	}
	log.Info("the server runs, and waits for the others of the cluster", "server", b.Name, "addr", m.Addr(), "cluster", b.Cluster.Name, "routes", b.Cluster.Routes)
	m.Watch(ctx, func() { log.Info("the broker is ready", "addr", m.Addr(), "dir", b.Dir) })
	log.Info("the server ends")
	return m.Close()
}
