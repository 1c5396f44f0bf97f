package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
)

// target are the flags of every subcommand that asks a pool.
type target struct {
	file   string   // --config: then the argument POOL is not given
	limit  timeFlag // --timeout, 0 = none
	sender string   // --sender or --by
}

func (t *target) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&t.file, "config", "c", "", "configuration `file`, in place of the argument POOL")
	cmd.Flags().Var(&t.limit, "timeout", "give up after this time, such as 90s; 0 never does")
}

func (t *target) senderFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.sender, "by", "", "`who` asks for it, in place of the user at this host; it is shown to others")
}

// who asks.
func (t *target) who() string { return cmp.Or(t.sender, who()) }

// within bounds ctx by --timeout.
func (t *target) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if t.limit == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, time.Duration(t.limit), errors.New("--timeout is over"))
}

// pool takes the argument POOL from args, unless there is --config, and returns
// the pool with the arguments that are left.
func (t *target) pool(g *globals, args []string) (config.Found, []string, error) {
	if t.file != "" {
		found, err := g.load(t.file)
		return found, args, err
	}
	if len(args) == 0 {
		return config.Found{}, nil, usage("POOL is missing")
	}
	found, err := g.named(args[0])
	return found, args[1:], err
}

// poolAlone is pool for commands that take nothing else.
func (t *target) poolAlone(g *globals, args []string) (config.Found, error) {
	found, rest, err := t.pool(g, args)
	if err == nil && len(rest) > 0 {
		err = usage("--config stands in place of POOL: both were given")
	}
	return found, err
}

// ofJob finds the pool of a job. With --config the id may stand alone.
func (t *target) ofJob(g *globals, printed string) (config.Found, error) {
	if t.file != "" {
		return g.load(t.file)
	}
	pool, _, err := cbsdmq.SplitID(printed)
	if err != nil {
		return config.Found{}, err
	}
	return g.named(pool)
}

// named finds a pool by its name.
func (g *globals) named(name string) (config.Found, error) {
	found, err := config.Find(g.places()).Get(name)
	if err != nil {
		return found, err
	}
	return found, g.usable(found)
}

// load reads a pool's file. Its name is known only where the file tells it.
func (g *globals) load(file string) (config.Found, error) {
	c, warnings, err := config.Load(file)
	if err != nil {
		return config.Found{}, err
	}
	found := config.Found{Name: c.Pool, File: file, Config: c, Warnings: warnings}
	return found, g.usable(found)
}

func (g *globals) usable(found config.Found) error {
	for _, w := range found.Warnings {
		warn(g.stderr, "%s", w)
	}
	return found.Config.Validate()
}

// A session is a client of one pool.
type session struct {
	*client.Client
	pool    config.Found
	section config.Section // the broker
	bus     *bus.Bus
	again   func(command, id string) string // the line to type about a job of the pool
	end     io.Closer
}

// otherBroker is how long a broker of a pool has to answer that has more of
// them.
const otherBroker = 3 * time.Second

// dial opens a session with the first broker of a pool that can be reached.
// Options say what is not the pool's.
func (g *globals) dial(ctx context.Context, pool config.Found, o client.Options) (*session, error) {
	if o.Unanswered == nil {
		o.Unanswered = func() { g.waitsFor(pool) }
	}
	sections := pool.Config.Buses()
	for ; len(sections) > 1; sections = sections[1:] {
		soon := o
		soon.ConnectTimeout = otherBroker
		s, err := g.dialBroker(ctx, pool, sections[0], soon)
		if err == nil || cbsdmq.CodeOf(err) != cbsdmq.CodeUnreachable || ctx.Err() != nil {
			return s, err
		}
		warn(g.stderr, "%v; trying %s", err, sections[1].Name)
	}
	return g.dialBroker(ctx, pool, sections[0], o)
}

// waitsFor tells the person at the terminal, once for each pool, why nothing
// happens. What cron starts says nothing where the answer still comes.
func (g *globals) waitsFor(pool config.Found) {
	if !isTerminal(g.stderr) {
		return
	}
	name := cmp.Or(pool.Name, pool.File)
	if _, told := g.told.LoadOrStore(name, true); !told {
		warn(g.stderr, "waiting for the agent of %s (no answer yet)", name)
	}
}

func (g *globals) dialBroker(ctx context.Context, pool config.Found, section config.Section, o client.Options) (*session, error) {
	signer, err := g.signer(pool.Config)
	if err != nil {
		return nil, err
	}
	opener := all.Opener{ClientOnly: true, Log: o.Log}
	b, closer, err := opener.Open(ctx, section.Kind, section.Config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", section.Name, err)
	}
	o.Bus, o.Pool, o.Tube, o.ReplyPrefix, o.Sign = b, pool.Name, section.Tube, section.ReplyTubePrefix, signer
	again := func(command, id string) string { return g.lineFor(pool, command, id) }
	o.Follow = func(id string) string { return again("follow", id) }
	c, err := client.Open(ctx, o)
	if err != nil {
		closer.Close()
		return nil, err
	}
	return &session{Client: c, pool: pool, section: section, bus: b, again: again, end: closer}, nil
}

// open is dial for a command that talks to a person.
func (g *globals) open(ctx context.Context, pool config.Found, t *target) (*session, error) {
	return g.dial(ctx, pool, client.Options{Sender: t.who(), Log: g.log()})
}

// openJob opens a session with the pool of a job.
func (g *globals) openJob(ctx context.Context, t *target, id string) (*session, error) {
	pool, err := t.ofJob(g, id)
	if err != nil {
		return nil, err
	}
	return g.open(ctx, pool, t)
}

// Close ends the session. What it could not tell the broker any more does not
// matter.
func (s *session) Close() {
	s.Client.Close()
	s.end.Close()
}

// who is the sender of jobs where --sender does not say it.
func who() string {
	host, _ := os.Hostname()
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return name + "@" + host
}
