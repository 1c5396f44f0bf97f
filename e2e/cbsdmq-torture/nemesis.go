package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq/e2e/judge"
	"github.com/cbsd/cbsdmq/internal/faultproxy"
)

// A deed is something that the nemesis does to a world.
type deed struct {
	name   string
	weight int
	do     func(w *world, ctx context.Context, r *rand.Rand)
}

// torment does deeds, one after the other, until ctx ends.
func (w *world) torment(ctx context.Context, r *rand.Rand, deeds []deed, calm [2]time.Duration) {
	sum := 0
	for _, d := range deeds {
		sum += d.weight
	}
	for sum > 0 && wait(ctx, between(r, calm[0], calm[1])) {
		n := r.IntN(sum)
		for _, d := range deeds {
			if n -= d.weight; n < 0 {
				w.note("%s: %s", w.broker.Name, d.name)
				begun := time.Now()
				d.do(w, ctx, r)
				if w.broker.Reorders { // any deed may cost a connection
					w.happens(judge.Event{Kind: judge.Reordered, From: begun, At: time.Now()})
				}
				break
			}
		}
	}
}

// processDeeds are done to agents, the runner and commands.
func (w *world) processDeeds() []deed {
	deeds := []deed{
		{"kill an agent", 6, func(w *world, ctx context.Context, r *rand.Rand) { w.pools[r.IntN(len(w.pools))].killAgent(ctx, r) }},
		{"freeze an agent", 3, func(w *world, ctx context.Context, r *rand.Rand) { w.pools[r.IntN(len(w.pools))].freezeAgent(ctx, r) }},
		{"end an agent", 2, func(w *world, ctx context.Context, r *rand.Rand) { w.pools[r.IntN(len(w.pools))].endAgent(ctx, r) }},
		{"read the configuration again", 1, func(w *world, _ context.Context, r *rand.Rand) {
			w.pools[r.IntN(len(w.pools))].signalAgent(syscall.SIGHUP)
		}},
		{"a second agent", 1, func(w *world, ctx context.Context, r *rand.Rand) { w.pools[r.IntN(len(w.pools))].secondAgent(ctx) }},
		{"kill the runner", 3, func(w *world, _ context.Context, _ *rand.Rand) { w.killRunner(time.Time{}) }},
		{"freeze the runner", 2, (*world).freezeRunner},
		{"freeze the runner, then kill it", 1, func(w *world, ctx context.Context, r *rand.Rand) {
			if pid := w.runner(); pid > 0 {
				from := time.Now()
				syscall.Kill(pid, syscall.SIGSTOP)
				wait(ctx, between(r, 0, 2*time.Second))
				w.killRunner(from)
			}
		}},
		{"kill an agent and the runner", 2, func(w *world, ctx context.Context, r *rand.Rand) {
			p := w.pools[r.IntN(len(w.pools))]
			p.signalAgent(syscall.SIGKILL)
			w.killRunner(time.Time{})
			p.killAgent(ctx, r)
		}},
		{"kill a command", 3, func(w *world, _ context.Context, r *rand.Rand) { w.pools[r.IntN(len(w.pools))].killCommand(r) }},
		{"freeze a command", 2, func(w *world, ctx context.Context, r *rand.Rand) { w.pools[r.IntN(len(w.pools))].freezeCommand(ctx, r) }},
	}
	return deeds
}

// serverDeeds are done to the broker, at a pace at which it is there most of the
// time. To start a slow one takes the machine as long as many jobs.
func (w *world) serverDeeds(length time.Duration) (deeds []deed, calm [2]time.Duration) {
	if len(w.servers) > 0 {
		deeds = []deed{{"restart the broker", 3, (*world).restartBroker}, {"freeze the broker", 2, (*world).freezeBroker}}
	}
	if w.broker.Slow {
		return deeds, [2]time.Duration{length / 8, length / 2}
	}
	return deeds, [2]time.Duration{500 * time.Millisecond, 12 * time.Second}
}

// networkDeeds are done to connections, and to the disk of the journal.
func (w *world) networkDeeds() (deeds []deed) {
	deeds = append(deeds,
		deed{"cut connections", 4, func(w *world, _ context.Context, r *rand.Rand) { w.proxy(r).Cut() }},
		deed{"half-close connections", 2, func(w *world, _ context.Context, r *rand.Rand) { w.proxy(r).HalfClose() }},
		deed{"freeze connections", 2, func(w *world, ctx context.Context, r *rand.Rand) {
			p := w.proxy(r)
			p.Mute(true)
			wait(ctx, between(r, 0, 3*time.Second))
			p.Mute(false)
		}},
		deed{"lose what the broker says", 3, func(w *world, ctx context.Context, r *rand.Rand) {
			p := w.proxy(r)
			p.Mute(true)
			wait(ctx, between(r, 0, time.Second))
			p.Cut()
			p.Mute(false)
		}},
		deed{"lose what is said to the broker", 2, func(w *world, ctx context.Context, r *rand.Rand) {
			p := w.proxy(r)
			p.Deaf(true)
			wait(ctx, between(r, 0, time.Second))
			p.Deaf(false)
		}},
		deed{"delay what the broker says", 2, func(w *world, ctx context.Context, r *rand.Rand) {
			p := w.proxy(r)
			p.Delay(between(r, 0, 300*time.Millisecond))
			wait(ctx, between(r, 0, 3*time.Second))
			p.Delay(0)
		}})
	if w.pools[0].small {
		deeds = append(deeds, deed{"fill the disk of the journal", 2, func(w *world, ctx context.Context, r *rand.Rand) {
			from := time.Now()
			free, err := w.pools[0].fill()
			if err != nil {
				w.note("%v", err)
				return
			}
			wait(ctx, between(r, 0, 4*time.Second))
			free()
			// There is room for everything a little later.
			w.rec.event(judge.Event{Kind: judge.DiskFull, Pool: w.pools[0].name, From: from, At: time.Now().Add(2 * time.Second)})
		}})
	}
	return deeds
}

// proxy is one by chance, more often one of agents.
func (w *world) proxy(r *rand.Rand) *faultproxy.Proxy {
	if len(w.toAgent) == 0 || r.IntN(3) == 0 {
		return w.toUser[r.IntN(len(w.toUser))]
	}
	return w.toAgent[r.IntN(len(w.toAgent))]
}

// signalAgent sends a signal to the agent, if there is one.
func (p *pool) signalAgent(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.agent != nil && !p.agent.gone() {
		if sig == syscall.SIGKILL {
			p.w.agentLost()
		}
		p.agent.signal(sig)
	}
}

// take takes the agent away from keepUp.
func (p *pool) take() *process {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.agent
	if a != nil {
		p.w.agentLost()
		p.look()
	}
	p.agent = nil
	return a
}

// agentLost notes that an agent ends, which may be the broker.
func (w *world) agentLost() {
	if w.broker.ForgetsReplies {
		w.happens(judge.Event{Kind: judge.RepliesForgot})
	}
}

func (p *pool) killAgent(ctx context.Context, r *rand.Rand) {
	if a := p.take(); a != nil {
		p.w.note("  agent of %s, pid %d", p.name, a.pid())
		a.kill()
	}
	if r.IntN(2) == 0 {
		wait(ctx, between(r, 0, 2*time.Second))
	}
	p.again()
}

func (p *pool) again() {
	if err := p.start(); err != nil {
		p.w.note("  %v", err)
	}
}

func (p *pool) endAgent(ctx context.Context, r *rand.Rand) {
	if a := p.take(); a != nil {
		a.signal(syscall.SIGTERM)
		select {
		case <-a.done:
		case <-time.After(15 * time.Second):
			p.w.rec.found("the agent of " + p.name + " does not end when it is told to")
			a.kill()
		}
	}
	wait(ctx, between(r, 0, time.Second))
	p.again()
}

func (p *pool) freezeAgent(ctx context.Context, r *rand.Rand) {
	p.signalAgent(syscall.SIGSTOP)
	wait(ctx, between(r, 0, 4*time.Second))
	p.signalAgent(syscall.SIGCONT)
}

// secondAgent starts one more for the pool: it must end by itself.
func (p *pool) secondAgent(ctx context.Context) {
	p.mu.Lock()
	there := p.agent != nil && !p.agent.gone()
	p.mu.Unlock()
	if !there {
		return
	}
	second, err := p.w.stage.start(p.w.progs.cbsdmq, "agent", "--config", p.file)
	if err != nil {
		p.w.note("  %v", err)
		return
	}
	select {
	case <-second.done:
	case <-ctx.Done():
		p.w.agentLost()
		second.kill()
	case <-time.After(5 * time.Second):
		p.w.agentLost()
		// It has the pool if the first one was gone for a moment.
		p.w.note("  the second agent of %s stays: %s", p.name, second.stderr.String())
		second.kill()
	}
}

// killRunner kills it; from is since when it was frozen.
func (w *world) killRunner(from time.Time) {
	pid := w.runner()
	if pid == 0 {
		return
	}
	w.note("  runner, pid %d", pid)
	w.happens(judge.Event{Kind: judge.RunnerLost, From: from, At: time.Now()})
	syscall.Kill(pid, syscall.SIGKILL)
}

func (w *world) freezeRunner(ctx context.Context, r *rand.Rand) {
	if pid := w.runner(); pid > 0 {
		from := time.Now()
		syscall.Kill(pid, syscall.SIGSTOP)
		wait(ctx, between(r, 0, 3*time.Second))
		w.happens(judge.Event{Kind: judge.RunnerFrozen, From: from, At: time.Now()})
		syscall.Kill(pid, syscall.SIGCONT)
	}
}

// atWork are the commands that run now.
func (p *pool) atWork() (acts []judge.Act) {
	all, _, err := judge.ReadTruthFile(p.truth, p.name)
	if err != nil {
		return nil
	}
	for _, a := range all {
		if a.End.IsZero() && a.Job != "-" && runsJob(a.PID, a.Job) {
			acts = append(acts, a)
		}
	}
	return acts
}

func (p *pool) killCommand(r *rand.Rand) {
	if acts := p.atWork(); len(acts) > 0 {
		a := acts[r.IntN(len(acts))]
		p.w.note("  %s %s, pid %d", a.Job, a.Command, a.PID)
		p.w.rec.event(judge.Event{Kind: judge.CommandKilled, Pool: p.name, PID: a.PID})
		syscall.Kill(a.PID, syscall.SIGKILL)
	}
}

func (p *pool) freezeCommand(ctx context.Context, r *rand.Rand) {
	if acts := p.atWork(); len(acts) > 0 {
		a := acts[r.IntN(len(acts))]
		p.w.note("  %s %s, pid %d", a.Job, a.Command, a.PID)
		syscall.Kill(a.PID, syscall.SIGSTOP)
		wait(ctx, between(r, 0, 2*time.Second))
		if runsJob(a.PID, a.Job) {
			syscall.Kill(a.PID, syscall.SIGCONT)
		}
	}
}

func (w *world) restartBroker(ctx context.Context, r *rand.Rand) {
	if w.broker.Forgets {
		w.happens(judge.Event{Kind: judge.BrokerForgot})
	}
	s := w.servers[r.IntN(len(w.servers))]
	s.Kill(w.stage)
	if r.IntN(2) == 0 {
		wait(ctx, between(r, 0, 3*time.Second))
	}
	s.Start(w.stage)
	if w.broker.Forgets {
		w.happens(judge.Event{Kind: judge.BrokerForgot}) // also what came in between
	}
}

// happens notes what is done to all pools of the world.
func (w *world) happens(e judge.Event) {
	for _, p := range w.pools {
		e.Pool = p.name
		w.rec.event(e)
	}
}

func (w *world) freezeBroker(ctx context.Context, r *rand.Rand) {
	s := w.servers[r.IntN(len(w.servers))]
	s.Stop(w.stage)
	wait(ctx, between(r, 0, 3*time.Second))
	s.Cont(w.stage)
}

// heal ends everything that the nemesis does.
func (w *world) heal() error {
	for _, p := range slices.Concat(w.toAgent, w.toUser) {
		p.Mute(false)
		p.Deaf(false)
		p.Delay(0)
	}
	if pid := w.runner(); pid > 0 {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	for _, p := range w.pools {
		for _, a := range p.atWork() {
			syscall.Kill(a.PID, syscall.SIGCONT)
		}
		p.signalAgent(syscall.SIGCONT)
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}
