package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
)

// poolsWait bounds `pools` as a whole: the agents are asked at the same time.
const poolsWait = 2 * time.Second

// noAgent is the state of a pool whose broker answers and whose agent does not.
const noAgent = "no agent"

// A poolInfo is a configured pool and the agent that serves it.
type poolInfo struct {
	Pool   string            `json:"pool"`
	File   string            `json:"file"`
	Broker string            `json:"broker"`
	URI    string            `json:"uri"`
	Tube   string            `json:"tube"`
	State  string            `json:"state"`               // of poolState, or no agent, unreachable, bad configuration
	Agent  *cbsdmq.AgentInfo `json:"agent"`               // null where none answers
	Server string            `json:"server,omitempty"`    // name and version of the broker
	Kept   *bool             `json:"durable,omitempty"`   // the broker keeps over its restart what it has confirmed
	Ready  *int              `json:"on_broker,omitempty"` // jobs on the tube that no agent has taken
	Error  string            `json:"error,omitempty"`
}

func newPoolsCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "pools",
		Short: "List the configured pools and who serves them",
		Long: `List the pools whose configuration files are found, and ask their agents, two
seconds at most, how they are.

STATE is "in trouble" where the agent cannot write its journal, has no runner or
does not trust its cbsd with changes; the reason stands below the table. UP is
how long the agent has been up, OLDEST how long the job has waited that has
waited longest, GUESTS how many are on and how many there are, DISK how full the
pool's file system is, DURABLE whether the broker keeps what it has confirmed
when it restarts. -o json has more: files, tubes, bytes.

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
		if info, err := s.bus.Inspect(ctx, bus.Tube{Name: section.Tube}); err == nil {
			in.Server, in.Kept = info.Server, &info.Durable
			if info.Ready >= 0 {
				in.Ready = &info.Ready
			}
		}
		var agent cbsdmq.AgentInfo
		if agent, err = s.Status(ctx); err == nil {
			in.State, in.Agent, in.Error = poolState(agent), &agent, agent.Trouble
			return in
		}
	}
	in.State, in.Error = "unreachable", err.Error()
	if cbsdmq.CodeOf(err) == cbsdmq.CodeGaveUp {
		in.State, in.Error = noAgent, fmt.Sprintf("no cbsdmq agent answers within %s", poolsWait)
	}
	return in
}

// poolState is the state of a pool whose agent answers.
func poolState(a cbsdmq.AgentInfo) string {
	switch {
	case a.Trouble != "":
		return "in trouble"
	case a.Paused != nil:
		return "paused"
	}
	return "serving"
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
		rows[i] = in.row()
	}
	if g.json() {
		return nil
	}
	titles := []string{"POOL", "STATE", "HOST", "UP", "RUNNING", "WAITING", "HELD", "OLDEST", "GUESTS", "DISK", "AGENT", "CBSD", "BROKER", "DURABLE"}
	if err := table(g.stdout, titles, rows); err != nil {
		return err
	}
	silent := -1 // the last one without an agent
	for i, in := range infos {
		if in.State == noAgent {
			silent = i
		}
	}
	for i, in := range infos {
		if in.Error != "" {
			warn(g.stderr, "pool %s (%s): %s", in.Pool, in.File, in.Error)
		}
		if in.Agent == nil {
			if in.Ready != nil && *in.Ready > 0 {
				warn(g.stderr, "pool %s: %d jobs wait on the broker until there is an agent", in.Pool, *in.Ready)
			}
			if i == silent {
				fmt.Fprintln(g.stderr, "hint: on the pool's host, `service cbsdmq status` says whether its agent runs, and `cbsdmq check` what is wrong")
			}
			continue
		}
		if p := in.Agent.Paused; p != nil {
			warn(g.stderr, "pool %s: %s", in.Pool, pausedText(p))
		}
		if n := in.Agent.PausedGuests; n > 0 {
			warn(g.stderr, "pool %s: %d of its guests are paused; `cbsdmq guests %[1]s` shows which", in.Pool, n)
		}
	}
	return nil
}

// row is the pool in the columns of the table.
func (in poolInfo) row() []string {
	row := []string{in.Pool, in.State, "", "", "", "", "", "", "", "", "", "", cmp.Or(in.Server, in.Broker), ""}
	if in.Kept != nil {
		row[13] = map[bool]string{true: "yes", false: "no"}[*in.Kept]
	}
	a := in.Agent
	if a == nil {
		return row
	}
	row[2], row[3] = a.Host, age(a.StartedAt)
	row[4], row[5] = fmt.Sprint(a.Running), fmt.Sprint(a.Queued)
	if a.Held > 0 {
		row[6] = fmt.Sprint(a.Held)
	}
	row[7] = age(a.Oldest)
	if a.Guests > 0 || a.DiskSize > 0 { // an older agent tells neither
		row[8] = fmt.Sprintf("%d/%d", a.GuestsOn, a.Guests)
	}
	if a.DiskSize > 0 {
		row[9] = fmt.Sprintf("%d%% of %s", (a.DiskUsed*100+a.DiskSize/2)/a.DiskSize, size(a.DiskSize))
	}
	row[10], row[11] = a.Version, a.CBSD
	return row
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
