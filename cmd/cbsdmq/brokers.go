package main

import (
	"fmt"
	"maps"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq/bus/brokers"
)

func newBrokersCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "brokers [NAME]",
		Short: "Say what each broker gives",
		Long: `List the brokers that can carry jobs, and what the tests of this version saw of
each: which of the promises of a broker it keeps, killed and frozen too, whether
what it confirmed survives that, the order, the largest message, the ways to log
in. With NAME, each promise, and how or why not.

THROUGHPUT is a share of what a bus in memory carries, with 16 jobs in flight and
servers that have a processor of their own (in brackets: that share one with the
jobs); LATENCY of a job alone a multiple of what broker, disk and fork take.`,
		Example: `  cbsdmq brokers
  cbsdmq brokers rabbitmq
  cbsdmq brokers -o json | jq -r 'select(.promises.Priority.kept=="yes").name'`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			t, _ := brokers.Recorded()
			return t.Names(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := brokers.Recorded()
			if err != nil {
				return err
			}
			list := t.Brokers
			if len(args) > 0 {
				b, ok := t.Find(args[0])
				if !ok {
					return usage("there is no broker %q, there are %s", args[0], strings.Join(t.Names(), ", "))
				}
				list = []brokers.Broker{b}
			}
			if g.json() {
				for _, b := range list {
					b.Answers = maps.Clone(b.Answers)
					for _, p := range t.Promises {
						if a, ok := b.Answers[p.Name]; ok {
							a.Text = p.Text
							b.Answers[p.Name] = a
						}
					}
					if err := g.print(b); err != nil {
						return err
					}
				}
				return nil
			}
			if len(args) == 0 {
				var rows [][]string
				for _, b := range list {
					rows = append(rows, b.Row())
				}
				return table(g.stdout, brokers.Columns, rows)
			}
			b := list[0]
			var rows [][]string
			for _, p := range t.Promises {
				if a, ok := b.Answers[p.Name]; ok {
					rows = append(rows, []string{string(a.Kept), p.Name, p.Text, a.How})
				}
			}
			if err := table(g.stdout, brokers.Columns, [][]string{b.Row()}); err != nil {
				return err
			}
			fmt.Fprintln(g.stdout)
			return table(g.stdout, []string{"KEPT", "PROMISE", "IN WORDS", "HOW, OR WHY NOT"}, rows)
		},
	}
}
