package simulation

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/mem"
	"github.com/cbsd/cbsdmq/e2e/judge"
)

var errReset = errors.New("connection reset by peer")

// hooks let the broker break as the schedule says.
func (w *world) hooks() mem.Hooks {
	f, d := w.plan.faults, w.dice
	hit := func(kind string, p float64) bool {
		yes := p > 0 && d.chance(kind, p)
		if yes {
			w.count("broker: " + kind)
		}
		return yes
	}
	what := func(m bus.Message) string {
		switch {
		case m.Tube.Name == tube:
			return " of a job"
		case strings.HasPrefix(m.Tube.Name, prefix) && !strings.HasPrefix(m.Tube.Name, prefix+"c"):
			return " of a reply"
		}
		return " of the control lane"
	}
	return mem.Hooks{
		OnDial: func() error {
			if hit("dial", f.dial) {
				return errReset
			}
			return nil
		},
		OnPut: func(m bus.Message) (stored bool, err error) {
			switch {
			case hit("put refused"+what(m), f.putRefused):
				return false, errReset
			case hit("put lost"+what(m), f.putLost):
				return true, errReset
			}
			return true, nil
		},
		OnDeliver: func(bus.Delivery) mem.Fate {
			switch {
			case hit("lose", f.lose):
				return mem.Lose
			case hit("twice", f.twice):
				return mem.Duplicate
			case hit("overtaken", f.overtaken):
				return mem.Overtaken
			}
			return mem.Deliver
		},
		OnAck: func(bus.Delivery) (applied bool, err error) {
			switch {
			case hit("ack lost", f.ackLost):
				return false, nil
			case hit("ack refused", f.ackRefused):
				return hit("ack applied", 0.5), errReset
			}
			return true, nil
		},
	}
}

// nemesis does what the schedule says, and returns when it is over.
func (w *world) nemesis(ctx context.Context) {
	begun := time.Now()
	for _, d := range w.plan.deeds {
		if !pause(ctx, time.Until(begun.Add(d.at))) {
			return
		}
		w.trace("deed", d.what, d.arg, d.for_.String())
		w.count(strings.TrimSpace(d.what + " " + d.arg))
		w.do(ctx, d)
	}
	pause(ctx, time.Until(begun.Add(w.plan.horizon)))
}

func (w *world) do(ctx context.Context, d deed) {
	m := w.machine
	switch d.what {
	case "kill agent":
		if l := w.agent.Load(); l != nil {
			l.die("killed")
		}
	case "restart agent":
		w.restart(ctx)
	case "rival":
		go func() {
			rctx, cancel := context.WithTimeout(ctx, d.for_)
			defer cancel()
			for n := 1; rctx.Err() == nil; n++ {
				w.serve(rctx, fmt.Sprintf("rival %d", n))
				pause(rctx, time.Second)
			}
		}()
	case "disk full":
		w.disk.left.Store(1 << 4)
		w.disk.full.Store(true)
		time.AfterFunc(d.for_, func() { w.disk.full.Store(false) })
	case "disk read-only":
		w.disk.readonly.Store(true)
		time.AfterFunc(d.for_, func() { w.disk.readonly.Store(false) })
	case "lose runner":
		m.do(func() {
			if m.trap = d.arg; d.arg == "" {
				m.lose()
			}
			m.away = d.for_ > 2*time.Second
		})
		time.AfterFunc(d.for_, func() { m.do(func() { m.away = false }) })
	case "refuse starts":
		m.do(func() { m.full = true })
		time.AfterFunc(d.for_, func() { m.do(func() { m.full = false }) })
	case "cut runner":
		m.cutRunner(w.dice.between("cut runner", 1, 3), d.for_, w.dice.chance("cut runner", 0.7))
	case "freeze runner":
		m.freeze()
		time.AfterFunc(d.for_, m.thaw)
	case "freeze agent":
		if l := w.agent.Load(); l != nil {
			l.stall(d.for_)
		}
	case "power off":
		m.powerOff()
		if l := w.agent.Load(); l != nil {
			l.die("the power is off")
		}
	case "copy journal":
		w.copyJournal()
	case "roll back":
		w.rollBack(ctx)
	case "set clock":
		w.clock.Store(int64(d.for_))
		if l := w.agent.Load(); l != nil {
			l.die("the clock is set")
		}
	case "foreign command":
		w.cbsd.setForeign(d.arg)
		time.AfterFunc(d.for_, func() { w.cbsd.setForeign("") })
	case "cut":
		w.broker.Cut()
	case "freeze":
		w.broker.Freeze()
		time.AfterFunc(d.for_, w.broker.Thaw)
	case "stop broker":
		w.broker.Stop()
		w.stopped.Store(true)
		time.AfterFunc(d.for_, w.startBroker)
	default:
		panic(d.what)
	}
}

// startBroker starts the broker where it was stopped.
func (w *world) startBroker() {
	if !w.stopped.CompareAndSwap(true, false) {
		return
	}
	if w.plan.volatile {
		w.event(judge.Event{Kind: judge.BrokerForgot})
	}
	w.broker.Start(!w.plan.volatile)
}

// forgetNow has a broker that forgets start anew when an agent is about to put
// replies, now and then, and waits until the agent's bus has noticed: what was found
// out about the broker before is not true of this one.
func (w *world) forgetNow(b *mortalBus, ms []bus.Message) {
	if !w.plan.volatile || w.healed.Load() || !strings.HasPrefix(b.l.name, "agent") ||
		ms[0].Tube.Kind != bus.Mailbox || !w.dice.chance("forgetting", 0.1) {
		return
	}
	w.count("forgets as a reply is put")
	outages := b.Outages()
	w.broker.Stop()
	w.stopped.Store(true)
	w.startBroker()
	for range 100 {
		if b.Outages() != outages {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// restart ends the agent that serves, in order. Another is started by who keeps
// it.
func (w *world) restart(ctx context.Context) {
	select {
	case w.stop <- struct{}{}:
	case <-ctx.Done():
	case <-time.After(5 * time.Second): // none serves
	}
}

// The journal's copy for a rollback, and when it was made.
func (w *world) copyJournal() {
	w.files <- struct{}{}
	defer func() { <-w.files }()
	for _, part := range []string{"state", "pool"} {
		if err := copyTree(filepath.Join(w.dir, part), filepath.Join(w.dir, "old", part)); err != nil {
			w.t.Error(err)
		}
	}
	w.copied = w.now()
}

// setClock sets the host's clock forward, or back where d is below zero. Time
// itself goes on as it did, so all that was noted by that clock is moved instead.
func (w *world) setClock(d time.Duration) {
	for _, dir := range []string{w.dir, filepath.Join(w.dir, "old")} {
		name := filepath.Join(dir, "pool", "journal.sqlite")
		if _, err := os.Stat(name); err != nil {
			continue
		}
		db, err := sql.Open("sqlite", name)
		if err != nil {
			w.t.Error(err)
			continue
		}
		for _, column := range []string{"job.accepted", "job.begun", "job.finished", "meta.saved", "address.put", "tombstone.at"} {
			table, column, _ := strings.Cut(column, ".")
			if _, err := db.Exec(fmt.Sprintf("UPDATE %s SET %s = %[2]s - ? WHERE %[2]s > 0", table, column), d.Microseconds()); err != nil {
				w.trace("set clock", err.Error()) // no journal yet
				break
			}
		}
		if err := db.Close(); err != nil {
			w.t.Error(err)
		}
	}
	w.machine.do(func() {
		for _, r := range w.machine.runs {
			if !r.event.At.IsZero() {
				r.event.At = r.event.At.Add(-d)
			}
		}
	})
	w.event(judge.Event{Kind: judge.ClockSet, Pool: pool})
}

// rollBack puts the journal back to its copy: the agent is killed, and what it
// leaves is thrown away.
func (w *world) rollBack(ctx context.Context) {
	old := filepath.Join(w.dir, "old")
	if _, err := os.Stat(filepath.Join(old, "pool", "journal.sqlite")); err != nil {
		return // it was not there yet
	}
	w.rolled.Store(&old)
	if l := w.agent.Load(); l != nil {
		l.die("the pool is rolled back")
	}
}
