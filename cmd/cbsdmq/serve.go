package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/proc"
	"github.com/cbsd/cbsdmq/internal/senders"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

// poolRetry is how often a pool is tried again that could not be served; the
// first times are sooner.
const poolRetry = 10 * time.Second

// agentOptions are the flags of `cbsdmq agent` and of the original agent.
type agentOptions struct {
	Configs []string
	CBSDEnv string // of the original: where the file has none
	Broker  string // likewise
	Wait    bool   // at the end, wait for running commands

	AwaitRunner bool // where no runner runs, wait and start none
}

// serveAgent serves pools until SIGTERM or SIGINT. On SIGHUP it reads the files
// again; a bad one keeps the old configuration.
func serveAgent(ctx context.Context, o agentOptions) error {
	agent.Tune()
	cfgs, who, err := o.load(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	end, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	logs, err := openLogs(cfgs)
	if err != nil {
		return err
	}
	var pools []string
	for _, c := range cfgs {
		pools = append(pools, c.Pool)
	}
	crashed, unwatch := watchCrashes(cfgs[0].StateDir, pools, logs[0].log)
	defer unwatch()
	h := newHosted(o, cfgs, who, logs)
	h.crashed, h.board = crashed, newBoard()
	defer h.board.close()
	for {
		next, err := h.serve(end, hup)
		if next == nil || err != nil {
			closeLogs(h.logs)
			return err
		}
		if &next.logs[0] != &h.logs[0] {
			closeLogs(h.logs)
		}
		h = next
	}
}

// load reads the files, and who may send to their pools; warnings go to log.
func (o agentOptions) load(log *slog.Logger) (cfgs []*config.Config, who trusted, err error) {
	who = make(trusted)
	byPool, tubes := make(map[string]string), make(queues)
	for _, file := range o.Configs {
		c, warnings, err := config.Load(file)
		if err != nil {
			return nil, nil, err
		}
		c.ApplyFlags(o.CBSDEnv, o.Broker)
		for _, w := range warnings {
			log.Warn(w.String())
		}
		if err := c.ValidateAgent(); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		if who[c], err = loadSenders(c); err != nil {
			return nil, nil, err
		}
		if other, twice := byPool[c.Pool]; twice {
			return nil, nil, cbsdmq.Errorf(cbsdmq.CodeBadConfig, "pool", "%s and %s both serve pool %s", other, file, c.Pool)
		}
		byPool[c.Pool] = file
		if err := tubes.add(c, file); err != nil {
			return nil, nil, err
		}
		cfgs = append(cfgs, c)
	}
	return cfgs, who, nil
}

// trusted are the senders of each pool, as they were when its file was read.
type trusted map[*config.Config]*senders.Set

// hosted are the pools of one reading of the configuration, in the order of its
// files.
type hosted struct {
	o     agentOptions
	cfgs  []*config.Config
	old   []*config.Config // of the reading before, nil where this is the first
	who   trusted
	logs  []poolLog
	buses *all.Opener

	crashed *crashes
	board   *board

	mu    sync.Mutex
	pools map[string]*cbsd.Pool // that are served now

	making *claims // of all readings: what a job of before claims is its own still
}

func newHosted(o agentOptions, cfgs []*config.Config, who trusted, logs []poolLog) *hosted {
	return &hosted{o: o, cfgs: cfgs, who: who, logs: logs, buses: &all.Opener{Log: logs[0].log}, making: new(claims)}
}

// errReload ends the serving of one reading of the configuration.
var errReload = errors.New("the configuration is read again")

// serve returns when ctx ends, with the next reading after SIGHUP, or with an
// error where this is the first one and not one pool could be served.
func (h *hosted) serve(ctx context.Context, hup <-chan os.Signal) (*hosted, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	h.board.listen(h.cfgs, h.logs[0].log)
	var wg sync.WaitGroup
	first := make(chan error, len(h.cfgs)) // nil: served
	for i := range h.cfgs {
		wg.Go(func() { h.keepServing(ctx, i, first) })
	}
	defer wg.Wait()
	var failures []error
	for range h.cfgs {
		if err := <-first; err != nil {
			failures = append(failures, err)
		}
	}
	if h.old == nil && len(failures) == len(h.cfgs) && ctx.Err() == nil {
		cancel(nil)
		return nil, errors.Join(failures...)
	}
	select {
	case <-ctx.Done():
		return nil, nil
	case <-hup:
	}
	next := h.reload()
	cancel(errReload)
	return next, nil
}

// reload reads the configuration and opens the logs anew; what is bad stays as
// it is.
func (h *hosted) reload() *hosted {
	cfgs, who, err := h.o.load(h.logs[0].log)
	var logs []poolLog
	if err == nil {
		logs, err = openLogs(cfgs)
	}
	if err != nil {
		h.logs[0].log.Error("the configuration is bad, keeping the old one", "err", err, "hint", cbsdmq.HintOf(err))
		cfgs, who = h.cfgs, h.who
		if logs, err = openLogs(cfgs); err != nil {
			logs = h.logs
		}
	}
	for _, c := range h.cfgs { // a pool may go back to it
		who[c] = h.who[c]
	}
	next := newHosted(h.o, cfgs, who, logs)
	next.old, next.crashed, next.board, next.making = h.cfgs, h.crashed, h.board, h.making
	return next
}

// keepServing serves pool i, again after a while where that fails: a pool that
// is not there now may be imported later, and must not keep the others from
// being served. Where a new configuration cannot be served it goes back to the
// old one.
func (h *hosted) keepServing(ctx context.Context, i int, first chan<- error) {
	c, log := h.cfgs[i], h.logs[i].log
	var once sync.Once
	report := func(err error) { once.Do(func() { first <- err }) }
	tries := 0
	for said := ""; ; tries++ {
		served := false
		opened := func() {
			if h.old == nil { // else it may still go back to the old configuration
				report(nil)
			}
		}
		err := h.servePool(ctx, c, log, opened, func() { served = true; report(nil) })
		if ctx.Err() != nil {
			report(nil)
			return
		}
		if err == nil {
			err = errors.New("ended")
		}
		h.board.failed(c.Pool, err)
		if tries == 0 && !served && h.old != nil && h.old[i] != c {
			log.Error("cannot serve the pool as the configuration says now, keeping the old one", "pool", c.Pool, "err", err, "hint", cbsdmq.HintOf(err))
			c = h.old[i]
			h.cfgs[i] = c // what the next reading goes back to
			continue
		}
		report(err)
		if text := err.Error(); text != said {
			said = text
			log.Error("cannot serve the pool, trying again", "pool", c.Pool, "err", err, "hint", cmp.Or(cbsdmq.HintOf(err), "`cbsdmq check` may say more"))
		}
		if errors.Is(err, runner.ErrNoRunner) { // nothing else is missing
			awaitRunner(ctx, c.RunDir)
			continue
		}
		select {
		case <-time.After(min(time.Second<<min(tries, 10), poolRetry)):
		case <-ctx.Done():
			return
		}
	}
}

// servePool opens everything that a pool needs and serves it. It calls opened
// when what is missing can only be a runner, and served when the pool is.
func (h *hosted) servePool(ctx context.Context, c *config.Config, log *slog.Logger, opened, served func()) (err error) {
	pool, err := openCBSD(ctx, c, log)
	if err != nil {
		return err
	}
	defer pool.Close()
	defer h.enter(c.Pool, pool)()
	if err := register(c.StateDir, c.Pool, c.CBSDEnv); err != nil {
		log.Warn("agents of other pools of this host will not know the names of this one's guests", "pool", c.Pool, "err", err)
	}
	report := pool.Probe(ctx)
	if err := report.Err(); err != nil {
		return err
	}
	warnOf(log, c.Pool, report)
	host, _ := os.Hostname()
	boot, err := proc.BootID()
	if err != nil {
		return err
	}
	j, err := journal.Open(ctx, journal.Options{Path: c.Journal, Mode: c.JournalMode, State: c.StateDir, Host: host, Boot: boot})
	if err != nil {
		return err
	}
	defer j.Close()
	if m := j.Migrated(); m != nil {
		log.Info("the journal has the schema of this version now", "pool", c.Pool, "from", m.From, "copy", m.Copy,
			"hint", "the copy is for going back to the former cbsdmq; remove it when that is not wanted any more")
	}
	var ends []agent.Endpoint
	for _, s := range c.Buses() {
		b, closer, err := h.buses.Open(ctx, s.Kind, s.Config)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		defer closer.Close()
		ends = append(ends, agent.Endpoint{
			Name: s.Name, Bus: b, Tube: s.Tube, Prefix: s.ReplyTubePrefix, Timeout: all.Timeout(s.PublishTimeout),
		})
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	var server *agent.Server
	defer func() { h.board.served(c.Pool, nil) }()
	server = agent.New(agent.Config{
		Pool: c.Pool, Host: host, Boot: boot, Version: version, Command: c.CBSD, Self: self,
		Endpoints: ends, Journal: j, CBSD: pool,
		Dial:      func(ctx context.Context) (agent.Runner, error) { return h.o.dialRunner(ctx, c.RunDir) },
		RunDir:    c.RunDir,
		Elsewhere: func(ctx context.Context, guest string) string { return h.elsewhere(ctx, c, guest) },
		Made:      func(guest string) { h.making.release(c.Pool, guest) },
		Fit:       func(ctx context.Context) string { return fit(ctx, pool, c.Pool, log) },
		Autostart: autostart(c, pool, log), StateDir: c.StateDir,
		Workers: c.Workers, Readers: c.Readers, Backlog: c.Backlog, OutputMax: int64(c.OutputMax),
		TimeLimit: time.Duration(c.TimeLimit), KillGrace: time.Duration(c.KillGrace),
		ForeignWait: time.Duration(c.ForeignWait), LegacyExpires: time.Duration(c.LegacyExpires),
		ReplyTTL: time.Duration(c.ReplyTTL),
		Limits:   journal.Limits{Results: time.Duration(c.Retention), IDs: time.Duration(c.IDMemory), Size: int64(c.JournalMax)},
		Stats:    h.board.stats(c.Pool),
		Senders:  h.who[c], RequireSigned: c.RequireSigned,
		Crashed: func() []string { return h.crashed.take(c.Pool) },
		Log:     log,
		Workdir: c.CBSDEnv, CBSDVersion: func() string { return report.Version },
		Ready: func() {
			h.board.served(c.Pool, server)
			log.Info("serving", "pool", c.Pool, "workdir", c.CBSDEnv, "broker", c.Broker)
			served()
		},
	})
	serving, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		if h.o.Wait && !errors.Is(context.Cause(ctx), errReload) {
			<-server.Drain()
		}
		cancel(context.Canceled)
	})()
	opened()
	return server.Serve(serving)
}

// loadSenders reads who may send signed jobs to a pool; nil: signatures are not
// looked at.
func loadSenders(c *config.Config) (*senders.Set, error) {
	if c.Senders == "" {
		return nil, nil
	}
	return senders.Load(c.Senders)
}

// warnOf logs what Probe warns of.
func warnOf(log *slog.Logger, pool string, r cbsd.Report) {
	for _, f := range r.Findings {
		if f.Level == cbsd.Warning {
			log.Warn(f.Text, "pool", pool, "about", f.About, "hint", f.Hint)
		}
	}
}

// fit says why no change may begin, and logs that CBSD was replaced.
func fit(ctx context.Context, p *cbsd.Pool, pool string, log *slog.Logger) string {
	unfit, upgraded := p.Fit(ctx)
	if upgraded != nil {
		log.Info("CBSD was replaced", "pool", pool, "version", upgraded.Version)
		warnOf(log, pool, *upgraded)
	}
	return unfit
}

// openCBSD opens a pool's environment as its configuration says.
func openCBSD(ctx context.Context, c *config.Config, log *slog.Logger) (*cbsd.Pool, error) {
	return cbsd.Open(ctx, cbsd.Config{
		CBSD: c.CBSD, Workdir: c.CBSDEnv, RunDir: c.RunDir, Color: c.CBSDColor,
		Allow: c.Allow, AllowWildcard: c.AllowWildcard, StrictArgs: c.StrictArgs, Log: log,
	})
}

// dialRunner connects to the runner of dir. Where none runs it starts one; with
// AwaitRunner the error is runner.ErrNoRunner.
func (o agentOptions) dialRunner(ctx context.Context, dir string) (agent.Runner, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cfg := runner.Config{Dir: dir, Version: version}
	if o.AwaitRunner {
		r, err := runner.Dial(ctx, cfg)
		if errors.Is(err, runner.ErrNoRunner) {
			err = cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "%w", err).WithHint(runnerHint)
		}
		return r, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	return runner.Ensure(ctx, cfg, exe, []string{"runner", "--dir", dir})
}

const runnerHint = "`service cbsdmq_runner start` or `systemctl start cbsdmq-runner`; its directory must be run_dir of the pool"

// awaitRunner returns when there may be a runner in dir, or ctx ends.
func awaitRunner(ctx context.Context, dir string) {
	for {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return
		}
		if !noRunner(ctx, dir) {
			return
		}
	}
}

// noRunner reports whether it is certain that no runner serves dir.
func noRunner(ctx context.Context, dir string) bool {
	r, err := runner.Dial(ctx, runner.Config{Dir: dir})
	if err == nil {
		r.Close()
	}
	return errors.Is(err, runner.ErrNoRunner)
}
