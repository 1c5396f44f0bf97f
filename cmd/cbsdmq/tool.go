package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
)

// newToolCommand is what the runner starts for the commands that are carried out
// by this program and not by cbsd. What went wrong goes to stdout, where cbsd
// has its errors.
func newToolCommand(g *globals) *cobra.Command {
	var command string
	cmd := &cobra.Command{
		Use:     "tool COMMAND [key=value ...]",
		Short:   "Carry out a command of cbsdmq's own; the runner starts it",
		Hidden:  true,
		Example: `  cbsdmq tool cbsdmq-image from=/pool1 name=cloud-Debian-x86-12`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if err := cbsd.Own(ctx, os.Getenv("workdir"), command, args, g.stdout); err != nil {
				// The last line is the reason in the job's reply.
				line := strings.ReplaceAll(err.Error(), "\n", "; ")
				if hint := cbsdmq.HintOf(err); hint != "" {
					line += ": " + hint
				}
				fmt.Fprintln(g.stdout, line)
				return exit(cbsdmq.ExitFailure)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&command, "cbsd", cbsd.DefaultCommand, "cbsd `command`")
	return cmd
}
