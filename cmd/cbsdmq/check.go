package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/bus/nats"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

func newCheckCommand(g *globals) *cobra.Command {
	var configs []string
	var example bool
	cmd := &cobra.Command{
		Use:   "check [--config FILE ...]",
		Short: "Say what is wrong before anything is started",
		Long: `Look at everything that an agent needs, and change nothing: the configuration,
the workdir, cbsd's version and whether key=value arguments and workdir= work on
it, the broker and what it keeps over a restart, other consumers on the tube, and
the journal.

Without --config all pools are checked that ` + "`cbsdmq pools`" + ` finds. With --example
nothing is looked at: it prints a configuration file to begin with, every key in
it explained.

Exit status: 0 if an agent can serve every pool, warnings included; 78 if not.`,
		Example: `  cbsdmq check
  cbsdmq check --config /usr/local/etc/cbsdmq/pool1.json
  cbsdmq check --example > /usr/local/etc/cbsdmq/pool1.json
  cbsdmq check -o json | jq 'select(.level != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if example {
				_, err := io.WriteString(g.stdout, config.Example())
				return err
			}
			fatal := false
			if len(configs) == 0 {
				pools := config.Find(g.places())
				for _, err := range pools.Broken {
					c := checker{g: g, pool: "-"}
					c.bad("configuration", err)
					fatal = true
				}
				for _, name := range pools.Names() {
					found, err := pools.Get(name)
					if err != nil { // it is in several files
						c := checker{g: g, pool: name}
						c.bad("configuration", err)
						fatal = true
						continue
					}
					configs = append(configs, found.File)
				}
				if len(configs) == 0 && !fatal {
					return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "pools", "no pool was found").
						WithHint("looked in %s; name a file with --config", strings.Join(pools.Looked, ", "))
				}
			}
			tubes := make(queues)
			for _, file := range configs {
				c := checker{g: g, file: file, tubes: tubes}
				c.check(cmd.Context())
				fatal = fatal || c.fatal
				if c.err != nil {
					return c.err
				}
			}
			if fatal {
				return exit(cbsdmq.ExitBadConfig)
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&configs, "config", "c", nil, "configuration `file` of a pool; may be given several times")
	cmd.Flags().BoolVar(&example, "example", false, "print a configuration file with every key explained")
	cmd.MarkFlagsMutuallyExclusive("config", "example")
	return cmd
}

// A checker looks at one pool and prints what it finds.
type checker struct {
	g     *globals
	file  string
	pool  string
	tubes queues // of all pools that are checked
	fatal bool
	err   error // of printing
}

func (c *checker) say(level cbsd.Level, about, text, hint string) {
	c.fatal = c.fatal || level == cbsd.Fatal
	if c.err != nil {
		return
	}
	if c.g.json() {
		c.err = c.g.print(struct {
			Pool  string     `json:"pool"`
			Level cbsd.Level `json:"level"`
			About string     `json:"about"`
			Text  string     `json:"text"`
			Hint  string     `json:"hint,omitempty"`
		}{c.pool, level, about, text, hint})
		return
	}
	_, c.err = fmt.Fprintf(c.g.stdout, "%-8s %s: %s: %s\n", level, plain(c.pool), about, plain(text))
	if hint != "" && c.err == nil {
		_, c.err = fmt.Fprintf(c.g.stdout, "%-8s   hint: %s\n", "", plain(hint))
	}
}

// bad reports an error, each one of those that were joined by itself.
func (c *checker) bad(about string, err error) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			c.bad(about, err)
		}
		return
	}
	c.say(cbsd.Fatal, about, err.Error(), cbsdmq.HintOf(err))
}

func (c *checker) check(ctx context.Context) {
	c.pool = filepath.Base(c.file)
	cfg, warnings, err := config.Load(c.file)
	for _, w := range warnings {
		c.say(cbsd.Warning, "configuration", w.String(), "")
	}
	if err == nil {
		err = cfg.ValidateAgent()
	}
	if err != nil {
		c.bad("configuration", err)
		return
	}
	c.pool = cfg.Pool
	c.say(cbsd.OK, "configuration", c.file, "")
	c.checkCBSD(ctx, cfg)
	c.checkSenders(cfg)
	c.checkLog(cfg)
	if cfg.OpenMetrics() {
		c.say(cbsd.Warning, "metrics", cfg.MetricsListen+" can be read from other hosts, without a password", `a loopback address such as "127.0.0.1:9114", or a firewall`)
	}
	served := c.checkJournal(ctx, cfg)
	c.checkRunner(ctx, cfg, served)
	if err := c.tubes.add(cfg, c.file); err != nil {
		c.bad("broker", err)
	}
	for _, s := range cfg.Buses() {
		c.checkBroker(ctx, s, served)
	}
}

func (c *checker) checkCBSD(ctx context.Context, cfg *config.Config) {
	tmp, err := os.MkdirTemp("", "cbsdmq-check-")
	if err != nil {
		c.bad("cbsd", err)
		return
	}
	defer os.RemoveAll(tmp)
	elsewhere := *cfg
	elsewhere.RunDir = tmp // an agent makes its own
	pool, err := openCBSD(ctx, &elsewhere, c.g.log())
	if err != nil {
		c.bad("cbsd", err)
		return
	}
	defer pool.Close()
	for _, f := range pool.Probe(ctx).Findings {
		c.say(f.Level, f.About, f.Text, f.Hint)
	}
	c.checkBoot(ctx, cfg, pool, rcFiles)
}

func (c *checker) checkSenders(cfg *config.Config) {
	set, err := loadSenders(cfg)
	switch {
	case err != nil:
		c.bad("senders", err)
	case set == nil:
	case cfg.RequireSigned:
		c.say(cbsd.OK, "senders", fmt.Sprintf("%d keys; what is not signed is refused", set.Len()), "")
	default:
		c.say(cbsd.Warning, "senders", fmt.Sprintf("%d keys; what is not signed is taken too", set.Len()),
			`"require_signed": true, once all clients sign`)
	}
}

// checkJournal reports whether an agent serves the pool now.
func (c *checker) checkJournal(ctx context.Context, cfg *config.Config) (served bool) {
	holder, served, err := journal.Served(cfg.Journal)
	if err != nil {
		c.bad("journal", err)
		return false
	}
	if served {
		c.say(cbsd.OK, "journal", fmt.Sprintf("an agent serves the pool: pid %d on %s since %s",
			holder.PID, holder.Host, holder.Since.Format(time.DateTime)), "")
	}
	log, _ := os.Stat(cfg.Journal + "-wal")
	err = journal.Verify(ctx, cfg.Journal, cfg.JournalMode)
	missing, empty := errors.Is(err, fs.ErrNotExist), cbsdmq.CodeOf(err) == cbsdmq.CodeNotFound
	switch {
	case (missing || empty) && log != nil && log.Size() > 0:
		c.say(cbsd.Fatal, "journal", cfg.Journal+" is empty or missing, but its log is there", "put it back beside its -wal, or move that away too: then a new journal is begun, and what the old one knew is forgotten")
	case missing:
		c.say(cbsd.OK, "journal", cfg.Journal+" does not exist yet; the agent makes it", "")
	case empty:
		c.say(cbsd.Warning, "journal", cfg.Journal+" is empty: the agent begins a new journal in it", "if there was one, restore it first: without it a repeat of an old job would run again")
	case err != nil:
		c.bad("journal", err)
	case !served:
		c.say(cbsd.OK, "journal", cfg.Journal, "")
	}
	c.checkPauses(ctx, cfg)
	return served
}

// checkRunner says who starts the commands.
func (c *checker) checkRunner(ctx context.Context, cfg *config.Config, served bool) {
	if err := runner.CheckDir(cfg.RunDir); err != nil {
		c.bad("runner", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := runner.Dial(ctx, runner.Config{Dir: cfg.RunDir})
	switch {
	case err == nil:
		c.say(cbsd.OK, "runner", fmt.Sprintf("pid %d, version %s, serves %s", r.PID(), r.Version(), cfg.RunDir), "")
		r.Close()
	case errors.Is(err, runner.ErrNoRunner) && served:
		c.say(cbsd.Warning, "runner", err.Error()+": jobs wait for it", runnerHint)
	case errors.Is(err, runner.ErrNoRunner):
		c.say(cbsd.OK, "runner", err.Error()+" yet: its service is started first; where it has none an agent starts it", "")
	default:
		c.bad("runner", err)
	}
}

// checkPauses says what a person paused: nothing there is begun.
func (c *checker) checkPauses(ctx context.Context, cfg *config.Config) {
	db, err := journal.OpenReader(cfg.Journal)
	if err != nil {
		return // checkJournal has said what is wrong with it
	}
	defer db.Close()
	pauses, err := journal.NewReader(db, cfg.Journal).Pauses(ctx)
	if err != nil {
		c.bad("journal", err)
		return
	}
	for _, p := range pauses {
		what, name := "the pool", c.pool
		if p.Guest != "" {
			what, name = "guest "+p.Guest, c.pool+" "+p.Guest
		}
		c.say(cbsd.Warning, "pause", what+" is "+pausedText(&p), "`cbsdmq resume "+name+"` ends it")
	}
}

func (c *checker) checkBroker(ctx context.Context, s config.Section, served bool) {
	about := s.Name
	if s.URI == config.Embedded {
		c.say(cbsd.Warning, about, "the pool is on an embedded broker", "it cannot move to another host; name a broker that other hosts reach to change that")
		if !nats.Running(s.EmbeddedDir) {
			if err := nats.CheckEmbedded(s.EmbeddedDir, s.EmbeddedListen); err != nil {
				c.bad(about, err)
				return
			}
			c.say(cbsd.OK, about, "the embedded broker does not run; the agent, or `cbsdmq broker`, starts it", "")
			return
		}
	}
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	opener := &all.Opener{ClientOnly: true}
	b, closer, err := opener.Open(ctx, s.Kind, s.Config)
	if err != nil {
		c.bad(about, err)
		return
	}
	defer closer.Close()
	absent := b.Caps().Brokerless && !served
	if absent {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	info, err := b.Inspect(ctx, bus.Tube{Name: s.Tube})
	if absent && errors.Is(err, syscall.ECONNREFUSED) {
		c.say(cbsd.OK, about, fmt.Sprintf("nobody listens at %s; the agent will", b.Addr()), "")
		return
	}
	if err != nil {
		hint := cbsdmq.HintOf(err)
		if slip := portSlip(ctx, s); slip != "" {
			hint = slip
		}
		c.say(cbsd.Fatal, about, fmt.Sprintf("%s: %v", b.Addr(), err), hint)
		_ = c.surveyBroker(parent, b, s) // what others of a cluster say; the cause is said above
		return
	}
	waiting := fmt.Sprintf("%d waiting", info.Ready)
	if info.Ready < 0 {
		waiting = "it does not tell how many wait"
	}
	c.say(cbsd.OK, about, fmt.Sprintf("%s at %s, tube %s: %s", info.Server, b.Addr(), s.Tube, waiting), "")
	if err := c.surveyBroker(parent, b, s); err != nil {
		c.say(cbsd.Warning, about, fmt.Sprintf("cannot see how its servers are: %v", err), cbsdmq.HintOf(err))
	}
	switch {
	case !info.Durable:
		c.say(cbsd.Warning, about, "messages that wait on the broker may be lost when it restarts", info.Advice)
	case !b.Caps().Brokerless:
		c.say(cbsd.OK, about, "messages that wait on the broker survive its restart", info.Advice)
	}
	if info.MaxBody > 0 && info.MaxBody < cbsdmq.JobMax-2 { // with a binlog beanstalkd takes two less
		c.say(cbsd.Warning, about, fmt.Sprintf("it takes messages of at most %d bytes", info.MaxBody),
			fmt.Sprintf("set its limit to %d or more (beanstalkd: -z)", cbsdmq.JobMax))
	}
	mine := 0
	if served {
		mine = 1
	}
	if info.Consumers > mine {
		c.say(cbsd.Warning, about, fmt.Sprintf("other consumers on tube %s: %d", s.Tube, info.Consumers-mine),
			"stop the other agent first (bs_router, cbsd-mq-router): it would take a part of the jobs")
	}
}

// surveyBroker says how the servers of a cluster are.
func (c *checker) surveyBroker(ctx context.Context, b *bus.Bus, s config.Section) error {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	found, err := b.Survey(ctx, bus.Tube{Name: s.Tube}, bus.Tube{Name: s.Tube + cbsdmq.ControlSuffix},
		bus.Tube{Name: bus.MailboxName(s.ReplyTubePrefix, 0), Kind: bus.Mailbox})
	if err != nil {
		return err
	}
	for _, f := range found {
		level := cbsd.OK
		if f.Warning {
			level = cbsd.Warning
		}
		c.say(level, s.Name, f.Text, f.Hint)
	}
	return nil
}

// portSlip knows the typing error of a well-known article: 1130 for 11300.
func portSlip(ctx context.Context, s config.Section) string {
	if s.Kind != "beanstalkd" || !strings.HasSuffix(s.URI, ":1130") {
		return ""
	}
	var d net.Dialer
	right := s.URI + "0"
	conn, err := d.DialContext(ctx, "tcp", right)
	if err != nil {
		return "beanstalkd's port is 11300, not 1130"
	}
	conn.Close()
	return fmt.Sprintf("something answers at %s: beanstalkd's port is 11300, not 1130", right)
}
