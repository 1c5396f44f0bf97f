package bustest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// slack is what a call may take beyond its deadline on a busy machine.
const slack = 5 * time.Second

// testKill kills the server while messages are put, and checks that each one
// that it confirmed is there afterwards.
func testKill(t *testing.T, s Server) {
	if s.queues != nil {
		q := *s.queues
		q.answer = s.answer
		testKillQueue(t, q)
		return
	}
	s.durable(t)
	q := queue(t)
	b, log := open(t, s.Driver)
	put(t, b, q, "first")
	var confirmed sync.Map
	var count, outage atomic.Int64
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := 0; ctx.Err() == nil; j++ {
				ms := make([]bus.Message, 1+j%5)
				for k := range ms {
					ms[k] = bus.Message{Tube: q, Body: fmt.Appendf(nil, "%d/%d/%d", i, j, k)}
				}
				for k, r := range b.Put(within(t, limit), ms...) {
					if r.Err == nil {
						confirmed.Store(string(ms[k].Body), true)
						count.Add(1)
					} else {
						outage.Add(1)
					}
				}
			}
		})
	}
	more := func() {
		t.Helper()
		target, until := count.Load()+200, time.Now().Add(limit)
		for count.Load() < target && time.Now().Before(until) {
			time.Sleep(time.Millisecond)
		}
		if count.Load() < target {
			t.Fatalf("%d messages confirmed, want %d", count.Load(), target)
		}
	}
	for range 2 {
		more()
		s.Kill(t)
		s.Start(t)
	}
	more()
	stop()
	wg.Wait()
	n := consume(t, b, q)
	missing := int(count.Load())
	got := map[string]bool{}
	for missing > 0 {
		ds, err := n.Receive(within(t, limit), 64)
		if err != nil {
			t.Fatalf("%d of %d confirmed messages are missing: %v", missing, count.Load(), err)
		}
		for _, body := range bodies(ds) {
			if _, ok := confirmed.Load(body); ok && !got[body] {
				missing--
			}
			got[body] = true
		}
		ack(t, n, ds...)
	}
	t.Logf("%d confirmed and there, %d in doubt", count.Load(), outage.Load())
	log.exactly(t, 4)
}

// testKillGivesBack checks that what was delivered and not acknowledged when
// the server died comes again, and that the old delivery is known to be void.
func testKillGivesBack(t *testing.T, s Server) {
	if s.queues != nil {
		s.cannot(t, "what is in an agent's memory goes with it: a job is its sender's again, and a reply is read from the journal")
	}
	s.durable(t)
	q := queue(t)
	b, log := open(t, s.Driver)
	put(t, b, q, "x")
	n := consume(t, b, q)
	old := receive(t, n, 1)
	s.Kill(t)
	s.Start(t)
	ds := receive(t, n, 1)
	if err := n.Ack(within(t, limit), old...); !errors.Is(err, bus.ErrGone) {
		t.Errorf("acknowledging a delivery of before: %v, want ErrGone", err)
	}
	if err := n.Release(within(t, limit), 0, old...); !errors.Is(err, bus.ErrGone) {
		t.Errorf("releasing a delivery of before: %v, want ErrGone", err)
	}
	ack(t, n, ds...)
	nothing(t, n)
	// The shared connection was replaced before it could put anybody in doubt.
	put(t, b, q, "y")
	take(t, n, 1)
	log.exactly(t, 2)
}

// testFrozen checks that every call ends with its context while the server
// answers nothing, and that all goes on when it does again.
func testFrozen(t *testing.T, s Server) {
	s.needs(t, s.Stop != nil && s.Cont != nil)
	q := queue(t)
	c := dial(t, s.Driver)
	n := consume(t, c, q)
	put(t, c, q, "a", "b")
	ds := receive(t, n, 2)
	b, _ := open(t, s.Driver)
	bn := consume(t, b, queue(t, "bus"))
	put(t, b, q, "c")
	s.Stop(t)
	frozen := true
	defer func() {
		if frozen {
			s.Cont(t)
		}
	}()
	for _, call := range []struct {
		name string
		do   func(context.Context) error
		may  bool // succeed, as it need not wait for the broker
	}{
		{"Conn.Put", func(ctx context.Context) error { return c.Put(ctx, bus.Message{Tube: q})[0].Err }, false},
		{"Conn.Inspect", func(ctx context.Context) error { _, err := c.Inspect(ctx, q); return err }, false},
		{"Conn.Expire", func(ctx context.Context) error { return c.Expire(ctx, q.Name, 1, 0) }, s.Driver.Caps().TTL},
		{"Conn.Consume", func(ctx context.Context) error {
			_, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{queue(t, "new")}})
			return err
		}, false},
		{"Consumer.Ack", func(ctx context.Context) error { return n.Ack(ctx, ds[0]) }, true},
		{"Consumer.Age", func(ctx context.Context) error { _, err := n.Age(ctx, ds[1]); return err }, true},
		{"Consumer.Receive", func(ctx context.Context) error {
			for { // what had come before it was frozen
				if _, err := n.Receive(ctx, 1); err != nil {
					return err
				}
			}
		}, false},
		{"Consumer.Release", func(ctx context.Context) error { return n.Release(ctx, 0, ds[1]) }, true},
		{"Driver.Dial", func(ctx context.Context) error {
			c, err := s.Driver.Dial(ctx)
			if err == nil {
				c.Close()
			}
			return err
		}, true},
		{"Bus.Put", func(ctx context.Context) error { return b.Put(ctx, bus.Message{Tube: q})[0].Err }, false},
		{"Bus.Inspect", func(ctx context.Context) error { _, err := b.Inspect(ctx, q); return err }, false},
		{"Bus Receive", func(ctx context.Context) error { _, err := bn.Receive(ctx, 1); return err }, false},
		{"Bus.Consume", func(ctx context.Context) error {
			_, err := b.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{queue(t, "new")}})
			return err
		}, false},
	} {
		const wait = short
		begin := time.Now()
		err := call.do(within(t, wait))
		if took := time.Since(begin); took > wait+slack {
			t.Errorf("%s ended after %v, deadline %v", call.name, took, wait)
		}
		if err == nil && !call.may {
			t.Errorf("%s succeeded on a frozen server", call.name)
		}
	}
	begin := time.Now()
	n.Close()
	c.Close()
	if took := time.Since(begin); took > slack {
		t.Errorf("closing took %v", took)
	}
	s.Cont(t)
	frozen = false
	put(t, b, queue(t, "bus"), "again")
	take(t, bn, 1)
}

// testAbsent starts without a broker, and loses it again.
func testAbsent(t *testing.T, s Server) {
	away := time.Second
	if s.Name != "" && !testing.Short() {
		away = 10 * time.Second
	}
	s.needs(t, s.Kill != nil && s.Start != nil)
	q := queue(t)
	s.Kill(t)
	b, log := open(t, s.Driver)
	for i := range 2 {
		if i > 0 {
			s.Kill(t)
		}
		// It is noticed: at once, but for a call whose time is over before.
		testserver.Eventually(t, limit, func() error {
			r := b.Put(within(t, short), bus.Message{Tube: q, Body: []byte("no")})
			if r[0].Err == nil {
				t.Fatal("Put succeeded without a broker")
			}
			if b.Away() == nil {
				return fmt.Errorf("not taken for an outage: %w", r[0].Err)
			}
			return nil
		})
		// Nobody waits longer than told.
		r := b.Put(within(t, short), bus.Message{Tube: q, Body: []byte("no")})
		if !errors.Is(r[0].Err, context.DeadlineExceeded) || cbsdmq.CodeOf(r[0].Err) != cbsdmq.CodeUnreachable {
			t.Errorf("Put without a broker: %v (code %s), want the deadline and code unreachable", r[0].Err, cbsdmq.CodeOf(r[0].Err))
		}
		log.exactly(t, 2*i+1)
		waiting, giveUp := context.WithCancel(t.Context())
		defer giveUp()
		got := make(chan error, 2)
		go func() {
			n, err := b.Consume(waiting, bus.ConsumeOptions{Tubes: []bus.Tube{q}})
			if err == nil {
				var ds []bus.Delivery
				if ds, err = n.Receive(waiting, 1); err == nil {
					err = n.Ack(waiting, ds...)
				}
				n.Close()
			}
			got <- err
		}()
		go func() { got <- b.Put(waiting, bus.Message{Tube: q, Body: []byte("yes")})[0].Err }()
		time.Sleep(away)
		log.exactly(t, 2*i+1)
		s.Start(t) // which may take long
		// bench/ measures how soon; here a cluster may elect first.
		defer time.AfterFunc(limit, giveUp).Stop()
		for range 2 {
			if err := <-got; err != nil {
				t.Fatalf("after the broker came: %v", err)
			}
		}
		log.exactly(t, 2*i+2)
	}
}
