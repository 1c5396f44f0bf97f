package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
)

func newFindCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "find GUEST",
		Short: "Say which pool has a guest",
		Long: `Ask all pools for a guest, and print where it is and how.

Exit status 0 where one pool has it, or several do; 1 where none has it. Where a
pool cannot be asked, that is said, and the status is 75 or 69.`,
		Example: `  cbsdmq find web7
  cbsdmq find -o json web7 | jq -r .pool`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeGuest,
		RunE: func(cmd *cobra.Command, args []string) error {
			places, err := g.askAll(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			var guests []cbsdmq.Guest
			var errs []error
			for _, p := range places {
				switch {
				case p.has:
					guests = append(guests, p.guest)
				case p.err != nil:
					errs = append(errs, fmt.Errorf("pool %s: %w", p.pool.Name, p.err))
				}
			}
			if len(guests) == 0 {
				_, err := only(args[0], places, nil)
				return err
			}
			return errors.Join(errors.Join(errs...), g.listGuests(guests))
		},
	}
}
