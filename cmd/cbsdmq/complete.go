package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
)

// A person who presses Tab waits no longer than completeWait for the newest
// completeJobs jobs of each pool.
const (
	completeWait = time.Second
	completeJobs = 20
)

// silence keeps what is waited for from the line that is being typed.
func silence() {}

// completePool completes the first argument to the name of a pool.
func (g *globals) completePool(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 || cmd.Flags().Changed("config") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return config.Find(g.places()).Names(), cobra.ShellCompDirectiveNoFileComp
}

// completeCommand completes [POOL] COMMAND [jname=GUEST]: the first word to a
// pool, and to a command once something of it is there.
func (g *globals) completeCommand(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	pools := config.Find(g.places())
	named := cmd.Flags().Changed("config")
	asked := pools.Found
	if len(args) > 0 && !named && slices.Contains(pools.Names(), args[0]) {
		if pool, err := pools.Get(args[0]); err == nil {
			asked = []config.Found{pool}
		}
		args = args[1:]
	} else if len(args) == 0 && !named {
		list := pools.Names()
		if begun != "" {
			list = append(list, cbsd.Commands()...)
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
	if len(args) == 0 {
		return cbsd.Commands(), cobra.ShellCompDirectiveNoFileComp
	}
	var list []cobra.Completion
	if !slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "jname=") }) {
		for _, guest := range g.guestNames(asked) {
			list = append(list, "jname="+guest)
		}
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// completeGuest completes the first argument to the name of a guest.
func (g *globals) completeGuest(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return g.guestNames(config.Find(g.places()).Found), cobra.ShellCompDirectiveNoFileComp
}

// completeSubject completes POOL, GUEST, or POOL GUEST.
func (g *globals) completeSubject(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	pools := config.Find(g.places())
	switch {
	case len(args) == 0 && !cmd.Flags().Changed("config"):
		return append(pools.Names(), g.guestNames(pools.Found)...), cobra.ShellCompDirectiveNoFileComp
	case len(args) == 1:
		if pool, err := pools.Get(args[0]); err == nil {
			return g.guestNames([]config.Found{pool}), cobra.ShellCompDirectiveNoFileComp
		}
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// guestNames are the guests of pools that answer in time.
func (g *globals) guestNames(pools []config.Found) []cobra.Completion {
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	guests, _ := each(pools, func(pool config.Found) ([]cbsdmq.Guest, error) {
		if err := pool.Config.Validate(); err != nil {
			return nil, err
		}
		s, err := g.dial(ctx, pool, client.Options{Unanswered: silence})
		if err != nil {
			return nil, err
		}
		defer s.Close()
		return s.Guests(ctx)
	})
	var list []cobra.Completion
	for _, v := range guests {
		list = append(list, cobra.CompletionWithDesc(v.Name, strings.Join([]string{v.Pool, v.Emulator, v.Status}, " ")))
	}
	return list
}

// completeJob completes to the id of a job: first to the pool, then to those of
// its newest jobs.
func (g *globals) completeJob(_ *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	pools := config.Find(g.places())
	name, _, ok := strings.Cut(begun, "/")
	if !ok && len(pools.Names()) > 1 {
		var list []cobra.Completion
		for _, n := range pools.Names() {
			list = append(list, n+"/")
		}
		return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	if !ok && len(pools.Found) > 0 {
		name = pools.Found[0].Name
	}
	pool, err := pools.Get(name)
	if err != nil || pool.Config.Validate() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	jobs, _ := g.askJobs(ctx, pool, client.Options{Unanswered: silence}, completeJobs, "")
	var list []cobra.Completion
	for _, j := range jobs {
		list = append(list, cobra.CompletionWithDesc(j.ID, described(j)))
	}
	return list, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

func described(j cbsdmq.JobInfo) string {
	return strings.Join(strings.Fields(j.Command+" "+j.Guest+" "+string(j.State)), " ")
}
