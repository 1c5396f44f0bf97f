package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/config"
)

func newGuestsCommand(g *globals) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "guests [POOL]",
		Short: "List jails and VMs",
		Long: `List the jails and VMs of a pool, or of all pools, as the agents read them from
CBSD's own state.`,
		Example: `  cbsdmq guests pool1
  cbsdmq guests -o json | jq -r 'select(.status=="On").name'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			if t.file != "" && len(args) > 0 {
				return usage("--config stands in place of POOL: both were given")
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
			v.Pool, v.Name, v.Emulator, v.Status, some(int64(v.PID), fmt.Sprint), v.IP4,
			some(int64(v.CPUs), fmt.Sprint), some(v.RAM, func(...any) string { return size(v.RAM) }), v.OSType, v.VNC,
		}
	}
	if g.json() {
		return nil
	}
	return table(g.stdout, []string{"POOL", "NAME", "EMULATOR", "STATUS", "PID", "IP4", "CPUS", "RAM", "OS", "VNC"}, rows)
}

// some shows n, or "" where it is 0.
func some(n int64, show func(...any) string) string {
	if n == 0 {
		return ""
	}
	return show(n)
}
