package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/proc"
	"github.com/cbsd/cbsdmq/journal"
)

func newHandBackCommand(g *globals) *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "hand-back POOL",
		Short: "Put the jobs that have not begun on the tube again, for an original agent",
		Long: `Put the jobs of a pool that have not begun on its tube again, in their order and
in the form of the original programs, before bs_router or cbsd-mq-router takes
the place of cbsdmq. Whoever waits for a job gets the reply of the original.

Run it on the pool's host with the agent stopped. Commands that were begun stay
in the journal: let them end first (cbsdmq agent --wait), or start the agent
once more later.

Jobs stay in the journal, and are listed, that the original cannot do: with words,
with an expiry, with values that it would give to a shell, or held. Interrupted, it
can be run again; the one job that may or may not be on the tube then ends
unknown and is listed. Where beanstalkd was restarted without a binlog since the job
was accepted, who waits for it gets no reply, which would reach a stranger: the
NOTE says so.

Exit status: 1 if jobs stay or ended unknown.`,
		Example: `  service cbsdmq stop pool1; cbsdmq hand-back pool1
  cbsdmq hand-back -o json pool1`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completePool,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := t.within(cmd.Context())
			defer cancel()
			pool, err := t.poolAlone(g, args)
			if err != nil {
				return err
			}
			done, err := handBack(ctx, pool.Config)
			if tell := g.listHandedBack(pool.Name, done); err == nil {
				err = tell
			}
			return err
		},
	}
	t.flags(cmd)
	return cmd
}

// handBack opens the pool's journal and its beanstalkd.
func handBack(ctx context.Context, c *config.Config) ([]agent.HandedBack, error) {
	if err := c.ValidateAgent(); err != nil {
		return nil, err
	}
	var section config.Section
	for _, s := range c.Buses() {
		if s.Kind == "beanstalkd" {
			section = s
			break
		}
	}
	if section.Kind == "" {
		return nil, cbsdmq.Errorf(cbsdmq.CodeBadConfig, "broker", "the pool has no beanstalkd, and the original agents know nothing else")
	}
	opener := all.Opener{ClientOnly: true}
	b, closer, err := opener.Open(ctx, section.Kind, section.Config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", section.Name, err)
	}
	defer closer.Close()
	asked, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := b.Inspect(asked, bus.Tube{Name: section.Tube}); err != nil {
		return nil, fmt.Errorf("%s: %w", section.Name, err) // before anything is written
	}
	if _, err := os.Stat(c.Journal); err != nil {
		return nil, cbsdmq.Errorf(cbsdmq.CodeNotFound, "", "no journal: %w", err)
	}
	host, _ := os.Hostname()
	boot, err := proc.BootID()
	if err != nil {
		return nil, err
	}
	j, err := journal.Open(ctx, journal.Options{Path: c.Journal, Mode: c.JournalMode, State: c.StateDir, Host: host, Boot: boot})
	if err != nil {
		return nil, err
	}
	defer j.Close()
	return agent.HandBack(ctx, c.Pool, j, agent.Endpoint{
		Name: section.Name, Bus: b, Tube: section.Tube, Prefix: section.ReplyTubePrefix, Timeout: all.Timeout(section.PublishTimeout),
	})
}

// listHandedBack prints what became of the jobs; an error says that some stay.
func (g *globals) listHandedBack(pool string, done []agent.HandedBack) error {
	var rows [][]string
	stay := 0
	for _, h := range done {
		as := ""
		if h.As == 0 {
			stay++
		} else {
			as = fmt.Sprint(h.As)
		}
		if g.json() {
			if err := g.print(map[string]any{"id": h.ID, "as": h.As, "reason": h.Reason}); err != nil {
				return err
			}
		}
		rows = append(rows, []string{h.ID, as, h.Reason})
	}
	if !g.json() && len(rows) > 0 {
		if err := table(g.stdout, []string{"ID", "ON THE TUBE AS", "NOTE"}, rows); err != nil {
			return err
		}
	}
	if stay > 0 {
		return fmt.Errorf("%d of %d jobs of %s were not handed back", stay, len(done), pool)
	}
	return nil
}
