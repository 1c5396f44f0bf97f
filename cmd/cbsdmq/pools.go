package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
)

// poolsWait bounds `pools` as a whole: the agents are asked at the same time.
const poolsWait = 2 * time.Second

// A poolInfo is a configured pool and the agent that serves it.
type poolInfo struct {
	Pool   string            `json:"pool"`
	File   string            `json:"file"`
	Broker string            `json:"broker"`
	URI    string            `json:"uri"`
	Tube   string            `json:"tube"`
	State  string            `json:"state"` // serving, no agent, unreachable, bad configuration
	Agent  *cbsdmq.AgentInfo `json:"agent"` // null where none answers
	Error  string            `json:"error,omitempty"`
}

func newPoolsCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "pools",
		Short: "List the configured pools and who serves them",
		Long: `List the pools whose configuration files are found, and ask their agents, two
seconds at most, how they are.

Files are looked for in the directories of --pools, else of ` + config.PoolsEnv + `, else in
` + config.DefaultPools + ` and where the original programs have theirs.`,
		Example: `  cbsdmq pools
  cbsdmq pools --pools ./etc
  cbsdmq pools -o json | jq -r 'select(.agent==null).pool'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			pools, err := new(target).all(g, nil)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), poolsWait)
			defer cancel()
			infos := make([]poolInfo, len(pools))
			var wg sync.WaitGroup
			for i, pool := range pools {
				wg.Go(func() { infos[i] = g.ask(ctx, pool) })
			}
			wg.Wait()
			return g.listPools(infos)
		},
	}
}

// ask asks the agent of a pool how it is.
func (g *globals) ask(ctx context.Context, pool config.Found) poolInfo {
	in := poolInfo{Pool: pool.Name, File: pool.File}
	if err := pool.Config.Validate(); err != nil {
		in.State, in.Error = "bad configuration", err.Error()
		return in
	}
	section := pool.Config.Buses()[0]
	in.Broker, in.URI, in.Tube = section.Name, withoutSecrets(section.URI), section.Tube
	s, err := g.dial(ctx, pool, client.Options{})
	if err == nil {
		defer s.Close()
		section = s.section
		in.Broker, in.URI, in.Tube = section.Name, withoutSecrets(section.URI), section.Tube
		var agent cbsdmq.AgentInfo
		if agent, err = s.Status(ctx); err == nil {
			in.State, in.Agent, in.Error = "serving", &agent, agent.Trouble
			return in
		}
	}
	in.State, in.Error = "unreachable", err.Error()
	if cbsdmq.CodeOf(err) == cbsdmq.CodeGaveUp {
		in.State, in.Error = "no agent", fmt.Sprintf("no cbsdmq agent answers within %s", poolsWait)
	}
	return in
}

func (g *globals) listPools(infos []poolInfo) error {
	rows := make([][]string, len(infos))
	for i, in := range infos {
		if g.json() {
			if err := g.print(in); err != nil {
				return err
			}
			continue
		}
		row := []string{in.Pool, in.State, "", "", "", "", in.Broker, in.Tube, in.File}
		if a := in.Agent; a != nil {
			row[2], row[3], row[4] = a.Host, fmt.Sprint(a.Queued), fmt.Sprint(a.Running)
			if a.Held > 0 {
				row[5] = fmt.Sprint(a.Held)
			}
		}
		rows[i] = row
	}
	if g.json() {
		return nil
	}
	titles := []string{"POOL", "STATE", "HOST", "QUEUED", "RUNNING", "HELD", "BROKER", "TUBE", "FILE"}
	if err := table(g.stdout, titles, rows); err != nil {
		return err
	}
	for _, in := range infos {
		if in.Error != "" {
			warn(g.stderr, "pool %s: %s", in.Pool, in.Error)
		}
	}
	return nil
}

// withoutSecrets hides the passwords in a broker's address, which may be a list
// of URLs.
func withoutSecrets(uri string) string {
	parts := strings.Split(uri, ",")
	for i, part := range parts {
		if u, err := url.Parse(strings.TrimSpace(part)); err == nil && u.User != nil {
			u.User = url.User("xxxxx")
			parts[i] = u.String()
		}
	}
	return strings.Join(parts, ",")
}
