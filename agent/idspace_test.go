package agent

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/mem"
)

// A job of an original client is acknowledged, that gets lost, and the host's
// clock is set forward before the broker delivers it again. It is the same job,
// whatever the clocks say, also where the broker was restarted.
func TestClockIsSetBeforeAJobComesAgain(t *testing.T) {
	for name, restart := range map[string]bool{"the same broker": false, "it was restarted": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			acked := make(chan struct{}, 3)
			var acks atomic.Int64
			b.broker.Hook(mem.Hooks{OnAck: func(d bus.Delivery) (bool, error) {
				if d.Tube != "jobs" {
					return true, nil
				}
				acked <- struct{}{}
				return acks.Add(1) > 1, nil // the first is lost
			}})
			b.start()
			number := b.raw(`{"Command":"jset","CommandArgs":{"jname":"jail1"},"JobID":4503599627370496}`)
			<-acked
			eventually(t, "it has ended", func() bool {
				row, err := b.row(fmt.Sprint(number))
				return err == nil && row != nil && row.State == cbsdmq.Done
			})
			b.stop()
			if restart {
				b.broker.Restart(true)
			}
			db, err := sql.Open("sqlite", filepath.Join(b.dir, "pool", "journal.sqlite"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Exec("UPDATE job SET accepted = accepted - ?", time.Hour.Microseconds()); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			b.start()
			<-acked
			later, err := json.Marshal(b.job("jset", "jname=jail2"))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the client is back too", func() bool {
				return b.client.Put(t.Context(), bus.Message{Tube: bus.Tube{Name: "jobs"}, Body: later})[0].Err == nil
			})
			eventually(t, "what was submitted later has run", func() bool {
				begun, _ := b.machine.snapshot()
				return slices.ContainsFunc(begun, func(s string) bool { return strings.HasSuffix(s, "jail2") })
			})
			if begun, _ := b.machine.snapshot(); len(begun) != 2 {
				t.Errorf("begun: %q", begun)
			}
		})
	}
}

// A job of an original client is on its way into the journal while the broker
// starts anew with nothing, and the agent learns of that by another job's reply.
// Its number is somebody else's now: it is not taken, as the broker has
// forgotten it, and nothing is sent there.
func TestBrokerForgetsAJobOnItsWay(t *testing.T) {
	b := newBench(t)
	s := b.start()
	long := b.submit("jstart", "jname=jail2")
	b.running(long)
	// The loss is noticed on the control lane: the loop is held below, and what
	// came over the jobs' connection waits for it.
	if b.askSigned(nil, nil, cbsdmq.Request{Op: cbsdmq.OpStatus}) == nil {
		t.Fatal("the control lane does not answer")
	}
	open := b.cbsd.block()
	// A tick would bring the job into the journal before the broker forgets it.
	hold, outages := make(chan struct{}), s.cfg.Endpoints[0].Bus.Outages()
	goOn := sync.OnceFunc(func() { close(hold) })
	defer goOn() // the agent does not end before
	s.post(t.Context(), func(l *loop) {
		for {
			select {
			case f := <-s.inbox:
				f(l)
			case <-hold:
				return
			}
		}
	})
	number := b.raw(`{"Command":"jset","CommandArgs":{"jname":"jail1"}}`)
	b.cbsd.looking(t)
	b.broker.Restart(false)
	eventually(t, "the agent has lost the broker", func() bool { return s.cfg.Endpoints[0].Bus.Outages() > outages })
	goOn()
	b.finish(long, 0, "")
	b.want(long, cbsdmq.Done, 0) // the outbox has asked which incarnation runs
	open()
	b.want(b.submit("jset", "jname=jail2"), cbsdmq.Done, 0)
	info, err := b.client.Inspect(t.Context(), bus.Tube{Name: bus.MailboxName("reply", number), Kind: bus.Mailbox})
	if err != nil || info.Ready > 0 {
		t.Errorf("the mailbox of number %d has %d replies, %v", number, info.Ready, err)
	}
	if row, err := b.row(fmt.Sprint(number)); err != nil || row != nil {
		t.Errorf("the journal has it: %+v, %v", row, err)
	}
}

// forgetful is a bus whose broker starts anew with nothing, once, when a reply is
// handed over, and is known to be back before that goes on.
type forgetful struct {
	Bus
	t       *testing.T
	restart func()
}

func (f *forgetful) again() {
	if f.restart == nil {
		return
	}
	n := f.Outages()
	f.restart()
	f.restart = nil
	eventually(f.t, "the outage is known", func() bool { return f.Outages() != n })
}

func (f *forgetful) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	f.again()
	return f.Bus.Put(ctx, ms...)
}

func (f *forgetful) PutDuring(ctx context.Context, outages int, ms ...bus.Message) []bus.Result {
	f.again()
	return f.Bus.PutDuring(ctx, outages, ms...)
}

// Between the look at the broker's ids and the reply the broker starts anew, and
// another job gets the number.
func TestBrokerForgetsWhileAReplyIsPut(t *testing.T) {
	b := newBench(t)
	restarted := make(chan struct{})
	b.adjust = func(cfg *Config) {
		cfg.Endpoints[0].Bus = &forgetful{Bus: cfg.Endpoints[0].Bus, t: t, restart: func() { b.broker.Restart(false); close(restarted) }}
	}
	b.start()
	number := b.raw(`{"Command":"jset","CommandArgs":{"jname":"jail1"}}`)
	later := b.job("jset", "jname=jail2")
	body, err := json.Marshal(later)
	if err != nil {
		t.Fatal(err)
	}
	<-restarted
	eventually(t, "the broker is back", func() bool {
		return b.client.Put(t.Context(), bus.Message{Tube: bus.Tube{Name: "jobs"}, Body: body})[0].Err == nil
	})
	b.want(later.Meta.ID, cbsdmq.Done, 0) // its reply came after the other
	info, err := b.client.Inspect(t.Context(), bus.Tube{Name: bus.MailboxName("reply", number), Kind: bus.Mailbox})
	if err != nil || info.Ready > 0 {
		t.Errorf("the mailbox of number %d has %d replies, %v", number, info.Ready, err)
	}
}
