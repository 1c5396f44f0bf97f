package simulation

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/mem"
	"github.com/cbsd/cbsdmq/e2e/judge"
	"github.com/cbsd/cbsdmq/journal"
)

// run lets the schedule come to pass. It is called in a bubble.
func (w *world) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	hook := w.wrote
	onWrite.Store(&hook)
	defer onWrite.Store(nil)
	w.broker.Hook(w.hooks())

	var agents, clients sync.WaitGroup
	agents.Go(func() { w.keepAgent(ctx) })
	cctx, giveUp := context.WithTimeout(ctx, w.plan.horizon+20*time.Minute)
	defer giveUp()
	for _, p := range w.plan.clients {
		clients.Go(func() { w.client(cctx, p) })
	}
	enough := make(chan struct{})
	clients.Go(func() { w.cancelUnwanted(cctx, enough) })
	w.nemesis(ctx)
	w.heal()
	close(enough)
	quiet := make(chan struct{})
	go func() { clients.Wait(); close(quiet) }()
	<-quiet
	w.person(ctx)
	w.untilQuiet(ctx)
	if w.plan.late || w.plan.volatile || !w.copied.IsZero() {
		w.followLate(ctx)
	}
	w.readLeft(ctx)
	w.measure()
	cancel()
	agents.Wait()
	w.settle()
}

// heal ends all that goes wrong.
func (w *world) heal() {
	w.trace("healed")
	w.healed.Store(true)
	w.broker.Hook(mem.Hooks{})
	w.broker.Thaw()
	w.startBroker()
	w.broker.Cut() // what got lost on its way comes again
	w.disk.full.Store(false)
	w.disk.readonly.Store(false)
	w.cbsd.setForeign("")
	w.machine.thaw()
	w.machine.do(func() {
		m := w.machine
		if m.away, m.full, m.trap, m.strike = false, false, "", false; m.conn != nil && m.conn.cut {
			m.conn.noticed()
			m.away, m.strike = false, false
		}
	})
}

// person does what the log asks a person to do.
func (w *world) person(ctx context.Context) {
	if s := w.open(ctx, "person"); s != nil {
		action := pick(w.dice, "person", "release", "drop")
		w.trace("person", action, fmt.Sprint(s.c.Held(ctx, action)))
		s.close()
	}
}

// untilQuiet waits until nothing is to be done any more. Where that takes too
// long the judge will say what is missing.
func (w *world) untilQuiet(ctx context.Context) {
	link := bus.New(w.broker.Driver(), bus.Options{})
	defer link.Close()
	times := 0 // in a row: what is on its way is neither on the broker nor in the journal
	for range 300 {
		if !w.isQuiet(ctx, link) {
			times = 0
		} else if times++; times == 2 {
			return
		}
		pause(ctx, 3*time.Second)
	}
	w.trace("it does not become quiet")
}

func (w *world) isQuiet(ctx context.Context, link *bus.Bus) bool {
	for _, name := range []string{tube, tube + cbsdmq.ControlSuffix} {
		info, err := link.Inspect(ctx, bus.Tube{Name: name})
		if err != nil || info.Ready > 0 {
			return false
		}
	}
	w.files <- struct{}{}
	defer func() { <-w.files }()
	db, err := journal.OpenReader(w.journalPath())
	if err != nil {
		return false
	}
	defer db.Close()
	r := journal.NewReader(db, w.journalPath())
	open, err := r.Open(ctx)
	if err != nil || len(open) > 0 {
		return false
	}
	owed, err := r.Owed(ctx)
	return err == nil && len(owed) == 0
}

// followLate has somebody else ask for the end of each job, before and after a
// restart of the agent.
func (w *world) followLate(ctx context.Context) {
	for _, name := range []string{"late", "later"} {
		s := w.open(ctx, name)
		if s == nil {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
		for _, j := range w.order {
			if !j.Legacy {
				s.follow(ctx, j, false)
			}
		}
		cancel()
		s.close()
		w.restart(ctx)
	}
}

// measure counts what is left of the schedule.
func (w *world) measure() {
	w.restart(context.Background()) // the next agent acknowledges what was forgotten
	time.Sleep(10 * time.Second)
	w.settle()
	count := func(name string, n int) {
		w.history.Measures = append(w.history.Measures, judge.Measure{Name: name, After: int64(n)})
	}
	w.machine.do(func() {
		count("commands that run", len(w.machine.procs))
		count("runs that nobody acknowledged", len(w.machine.runs))
		for _, a := range w.machine.acts {
			w.history.Acts = append(w.history.Acts, *a)
		}
	})
	for _, j := range w.order {
		w.history.Jobs = append(w.history.Jobs, *j)
	}
	w.countCancels()
}
