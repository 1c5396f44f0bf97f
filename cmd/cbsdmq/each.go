package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
)

// A chore is one job of `each`, and what became of it.
type chore struct {
	Pool    string         `json:"pool"`
	Guest   string         `json:"guest"`
	Command string         `json:"command"`
	Args    []string       `json:"args"`
	ID      string         `json:"id,omitempty"`
	State   string         `json:"state"` // planned; or how the job ended; or unreachable, skipped
	Outcome cbsdmq.Outcome `json:"outcome,omitempty"`
	ErrCode int            `json:"err_code"`
	Reason  string         `json:"reason,omitempty"`
	Hint    string         `json:"hint,omitempty"`
	Took    float64        `json:"took,omitempty"` // seconds

	job client.Job
}

// bad reports whether it did not do what it was to do.
func (c *chore) bad() bool { return c.State != string(cbsdmq.Done) && c.State != planned }

// What a chore is beside the ends of a job.
const (
	planned     = "planned"     // dry run
	unreachable = "unreachable" // the pool cannot be asked
	skipped     = "skipped"     // Ctrl-C came before
)

func newEachCommand(g *globals) *cobra.Command {
	var o jobFlags
	var yes bool
	parallel := 4
	cmd := &cobra.Command{
		Use:   "each POOLS COMMAND [word | key=value ...]",
		Short: "Run a command on many guests of many pools",
		Long: `Run a command in all pools whose names match the pattern POOLS, and on each guest
that jname= chooses: @all, @on, @off, or a pattern such as web*. A command of an
engine takes guests of that engine only: bsnapshot those of bhyve. Without such a
jname the command runs once in each pool.

It only prints what it would do, unless --yes is given. Then it has at most
--parallel jobs on their way at one time, waits for all of them, and prints a
table. Ctrl-C submits no more and leaves those that are on their way. --key names
the work on each guest.

Exit status 1 if one of them failed, or a pool could not be asked.`,
		Example: `  cbsdmq each 'pool*' bsnapshot mode=create jname=@on snapname=nightly
  cbsdmq each --yes 'pool*' bsnapshot mode=create jname=@on snapname=nightly
  cbsdmq each --yes --parallel 1 pool1 brestart jname=web*
  cbsdmq each --yes -o json '*' jls`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: g.completeCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := o.within(cmd.Context())
			defer cancel()
			ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			if o.file != "" {
				return usage("--config is of one pool: name POOLS by a pattern")
			}
			if parallel < 1 {
				return usage("--parallel: %d is less than 1", parallel)
			}
			pools, err := g.matching(args[0])
			if err != nil {
				return err
			}
			job, err := o.job(args[1:])
			if err != nil {
				return err
			}
			for _, a := range job.Args {
				if err := checkChoice(a.Value); a.Name == "jname" && err != nil {
					return err
				}
			}
			var others otherEngines
			chores, err := each(pools, func(pool config.Found) ([]*chore, error) { return g.choresOf(ctx, pool, job, &o, &others) })
			if err != nil {
				return err // a pool's file that cannot be used: nothing is begun
			}
			if yes {
				g.doChores(ctx, pools, chores, parallel, &o)
			}
			if err := g.listChores(chores); err != nil {
				return err
			}
			if len(chores) == 0 {
				warn(g.stderr, "%s", others.none(job.Command))
			} else if !yes {
				warn(g.stderr, "nothing was done: --yes does it")
			}
			if slices.ContainsFunc(chores, (*chore).bad) {
				return exit(cbsdmq.ExitFailure)
			}
			return nil
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it")
	cmd.Flags().IntVarP(&parallel, "parallel", "j", parallel, "at most so many jobs at one time, over all pools")
	return cmd
}

// matching are the pools whose names match a pattern.
func (g *globals) matching(pattern string) ([]config.Found, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, usage("%q is not a pattern", pattern)
	}
	all := config.Find(g.places())
	for _, err := range all.Broken {
		printError(g.stderr, err)
	}
	var pools []config.Found
	for _, name := range all.Names() {
		if ok, _ := path.Match(pattern, name); !ok {
			continue
		}
		pool, err := all.Get(name)
		if err != nil {
			return nil, err
		}
		pools = append(pools, pool)
	}
	if len(pools) == 0 {
		_, err := all.Get(pattern)
		return nil, err
	}
	return pools, nil
}

// otherEngines counts the guests that were chosen but that the command is not
// for, by their engines.
type otherEngines struct {
	mu    sync.Mutex
	count map[string]int
}

func (e *otherEngines) add(engine string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count == nil {
		e.count = make(map[string]int)
	}
	e.count[engine]++
}

// none says that the command has no guest, and why.
func (e *otherEngines) none(command string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.count) == 0 {
		return "no guest matches"
	}
	var list []string
	total := 0
	for _, engine := range slices.Sorted(maps.Keys(e.count)) {
		list = append(list, fmt.Sprintf("%d of %s", e.count[engine], engine))
		total += e.count[engine]
	}
	do := "do"
	if total == 1 {
		do = "does"
	}
	return fmt.Sprintf("no %s guest matches; %s %s", cbsd.Engine(command), strings.Join(list, ", "), do)
}

// choresOf makes the jobs of one pool. A pool that cannot be asked is one bad
// chore.
func (g *globals) choresOf(ctx context.Context, pool config.Found, job client.Job, o *jobFlags, others *otherEngines) ([]*chore, error) {
	if err := g.usable(pool); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(job.Args, func(a cbsdmq.Arg) bool { return a.Name == "jname" })
	if i < 0 || !strings.HasPrefix(job.Args[i].Value, "@") && !cbsd.Pattern(job.Args[i].Value) {
		guest := ""
		if i >= 0 {
			guest = job.Args[i].Value
		}
		return []*chore{newChore(pool, guest, job)}, nil
	}
	which := job.Args[i].Value
	guests, err := g.poolGuests(ctx, pool, &o.target)
	if err != nil {
		c := newChore(pool, which, job)
		c.fail(unreachable, err)
		return []*chore{c}, nil
	}
	var list []*chore
	for _, guest := range guests {
		if !chosen(which, guest) {
			continue
		}
		if !cbsd.Takes(job.Command, guest.Emulator) {
			others.add(guest.Emulator)
			continue
		}
		one := job
		one.Args = slices.Clone(job.Args)
		one.Args[i].Value = guest.Name
		if job.Key != "" { // of the guest: one for all would be one job
			one.Key = job.Key + "/" + guest.Name
		}
		list = append(list, newChore(pool, guest.Name, one))
	}
	return list, nil
}

func checkChoice(which string) error {
	if strings.HasPrefix(which, "@") && which != "@all" && which != "@on" && which != "@off" {
		return usage("jname=%s: it is @all, @on, @off or a pattern such as web*", which)
	}
	if _, err := path.Match(which, ""); err != nil {
		return usage("jname=%s is not a pattern", which)
	}
	return nil
}

func chosen(which string, g cbsdmq.Guest) bool {
	switch which {
	case "@all":
		return true
	case "@on":
		return g.Status == "On"
	case "@off":
		return g.Status == "Off"
	}
	ok, _ := path.Match(which, g.Name)
	return ok
}

func newChore(pool config.Found, guest string, job client.Job) *chore {
	return &chore{Pool: pool.Name, Guest: guest, Command: job.Command, State: planned, Args: shownArgs(job), job: job}
}

// shownArgs are a job's arguments for people: secrets are hidden.
func shownArgs(job client.Job) []string {
	args := []string{}
	for _, a := range job.Args {
		if cbsd.Redact(a.Name) {
			a.Value = cbsd.Hidden
		}
		args = append(args, a.Name+"="+a.Value)
	}
	return append(args, job.Words...)
}

func (c *chore) fail(state string, err error) {
	c.State, c.ErrCode, c.Reason, c.Hint = state, cbsdmq.ExitStatus(err), err.Error(), cbsdmq.HintOf(err)
}

// doChores runs them, with one session for each pool.
func (g *globals) doChores(ctx context.Context, pools []config.Found, chores []*chore, parallel int, o *jobFlags) {
	sessions := make(map[string]*session)
	broken := make(map[string]error)
	for _, pool := range pools {
		if !slices.ContainsFunc(chores, func(c *chore) bool { return c.Pool == pool.Name && c.State == planned }) {
			continue
		}
		s, err := g.dial(ctx, pool, client.Options{Sender: o.sender, Log: g.log()})
		if err != nil {
			broken[pool.Name] = err
			continue
		}
		defer s.Close()
		sessions[pool.Name] = s
	}
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for _, c := range chores {
		if c.State != planned {
			continue
		}
		if err := broken[c.Pool]; err != nil {
			c.fail(unreachable, err)
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			c.State, c.Reason = skipped, "stopped before it was submitted"
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			c.do(ctx, sessions[c.Pool])
			if !g.json() && c.bad() {
				warn(g.stderr, "%s %s: %s", c.Pool, cmp.Or(c.Guest, c.Command), c.State)
			}
		})
	}
	wg.Wait()
}

func (c *chore) do(ctx context.Context, s *session) {
	begun := time.Now()
	id, err := s.Submit(ctx, c.job)
	c.ID = id
	if err == nil {
		var final cbsdmq.Reply
		if final, err = s.Follow(ctx, id, 0, nil); err == nil {
			c.State, c.Outcome, c.ErrCode, c.Reason, c.Hint = string(final.State), final.Outcome, final.ErrCode, final.Reason, final.Hint
			if final.State == "" { // an original agent
				c.State = string(cbsdmq.Done)
				if final.ErrCode != 0 {
					c.State = string(cbsdmq.Failed)
				}
			}
			c.Took = time.Since(begun).Seconds()
			return
		}
	}
	c.fail(unreachable, err)
	if ctx.Err() != nil && id != "" {
		c.State, c.Reason = "left", "it goes on: `"+s.again("follow", id)+"`"
	}
}

func (g *globals) listChores(chores []*chore) error {
	var errs []error
	rows := make([][]string, 0, len(chores))
	for _, c := range chores {
		if g.json() {
			errs = append(errs, g.print(c))
			continue
		}
		took := ""
		if c.Took > 0 {
			took = span(time.Duration(c.Took * float64(time.Second)))
		}
		what := strings.Join(append([]string{c.Command}, c.Args...), " ")
		rows = append(rows, []string{c.Pool, c.Guest, c.State, string(c.Outcome), took, c.ID, cmp.Or(oneLine(c.Reason), what)})
	}
	if g.json() {
		return errors.Join(errs...)
	}
	if len(rows) == 0 {
		return nil
	}
	failed := 0
	for _, c := range chores {
		if c.bad() {
			failed++
		}
	}
	if err := table(g.stdout, []string{"POOL", "GUEST", "STATE", "OUTCOME", "TOOK", "ID", "REASON OR COMMAND"}, rows); err != nil {
		return err
	}
	if failed > 0 {
		warn(g.stderr, "%d of %d failed", failed, len(chores))
	}
	return nil
}
