package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/config"
)

func newGuestsCommand(g *globals) *cobra.Command {
	var t target
	var all bool
	cmd := &cobra.Command{
		Use:   "guests [POOL | --all]",
		Short: "List jails and VMs, and what goes on with them",
		Long: `List the jails and VMs of a pool, or of all pools, as the agents read them from
CBSD's own state at that moment: also those that were made or changed by hand.

BUSY is the command that changes the guest now, ours or another's; how many jobs
wait for it; and that it is paused.`,
		Example: `  cbsdmq guests --all
  cbsdmq guests pool1
  cbsdmq guests -o json | jq -r 'select(.status=="On").name'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			switch {
			case t.file != "" && len(args) > 0:
				return usage("--config stands in place of POOL: both were given")
			case all && (t.file != "" || len(args) > 0):
				return usage("--all is for all pools, and one was given")
			}
			pools, err := t.all(g, args)
			if err != nil {
				return err
			}
			guests, err := each(pools, func(pool config.Found) ([]cbsdmq.Guest, error) {
				return g.poolGuests(ctx, pool, &t)
			})
			return errors.Join(err, g.listGuests(guests))
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVarP(&all, "all", "a", false, "those of all pools, as without POOL")
	return cmd
}

func (g *globals) poolGuests(ctx context.Context, pool config.Found, t *target) ([]cbsdmq.Guest, error) {
	s, err := g.open(ctx, pool, t)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Guests(ctx)
}

func (g *globals) listGuests(guests []cbsdmq.Guest) error {
	rows := make([][]string, len(guests))
	for i, v := range guests {
		if g.json() {
			if err := g.print(v); err != nil {
				return err
			}
			continue
		}
		rows[i] = []string{
			v.Pool, v.Name, v.Emulator, v.Status, some(int64(v.CPUs), fmt.Sprint),
			some(v.RAM, func(...any) string { return size(v.RAM) }), v.IP4, vncOf(v), busyWith(v),
		}
	}
	if g.json() {
		return nil
	}
	return table(g.stdout, []string{"POOL", "GUEST", "ENGINE", "STATE", "CPUS", "RAM", "ADDRESS", "VNC", "BUSY"}, rows)
}

// vncOf is where a guest's VNC server is, "" where there is none now.
func vncOf(v cbsdmq.Guest) string {
	if host, port, err := net.SplitHostPort(v.VNC); err != nil || host == "" || port == "" || port == "0" || v.Status != "On" {
		return ""
	}
	return v.VNC
}

// busyWith says what goes on with a guest.
func busyWith(v cbsdmq.Guest) string {
	text := v.Busy
	add := func(s string) {
		if text != "" {
			text += ", "
		}
		text += s
	}
	if v.Queued > 0 {
		add(fmt.Sprintf("%d waiting", v.Queued))
	}
	if v.Paused != nil {
		add("paused")
	}
	return text
}

// some shows n, or "" where it is 0.
func some(n int64, show func(...any) string) string {
	if n == 0 {
		return ""
	}
	return show(n)
}
