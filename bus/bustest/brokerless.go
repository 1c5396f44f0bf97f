package bustest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A bus without a broker keeps nothing in a queue that nobody consumes, so what
// the suite puts into a queue and looks at later would never be confirmed. What
// it does keep is mailboxes: with them in place of queues the suite runs, but for
// KillGivesBack, as what is in memory does not survive. What is different about
// its queues, that a message is its sender's until a consumer has acknowledged
// it, has tests of its own.

// keeping is a driver whose queues are mailboxes.
type keeping struct{ bus.Driver }

func (d keeping) Dial(ctx context.Context) (bus.Conn, error) {
	c, err := d.Driver.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return keepingConn{c}, nil
}

type keepingConn struct{ bus.Conn }

func kept(t bus.Tube) bus.Tube { t.Kind = bus.Mailbox; return t }

func (c keepingConn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	ms = slices.Clone(ms)
	for i := range ms {
		ms[i].Tube = kept(ms[i].Tube)
	}
	return c.Conn.Put(ctx, ms...)
}

func (c keepingConn) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	o.Tubes = slices.Clone(o.Tubes)
	for i := range o.Tubes {
		o.Tubes[i] = kept(o.Tubes[i])
	}
	return c.Conn.Consume(ctx, o)
}

func (c keepingConn) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	return c.Conn.Inspect(ctx, kept(t))
}

// keeping returns s with mailboxes in place of queues where there is no broker.
func (s Server) keeping() Server {
	if !s.Driver.Caps().Brokerless {
		return s
	}
	queues, at := s, s.At
	s.queues = &queues
	s.Driver = keeping{s.Driver}
	if at != nil {
		s.At = func(addr string) bus.Driver { return keeping{at(addr)} }
	}
	return s
}

// ofBrokerless are the tests of queues that keep nothing.
var ofBrokerless = []test{
	{"ConfirmedByAck", "a put is confirmed when the agent has acknowledged it", testConfirmedByAck},
	{"NobodyThere", "what nobody takes is its sender's alone again at the deadline", testNobodyThere},
	{"LateAck", "who gave up while the agent had it is told that it is not known", testLateAck},
	{"ConsumerGone", "what an agent had that is gone comes to the next, and is confirmed once", testConsumerGone},
	{"SenderGone", "what a sender left unconfirmed is not delivered", testSenderGone},
	{"ReleasedQueue", "a message can be given back to its sender's queue", testReleased},
	{"PastItsTTL", "what nobody took in its time is gone, and its sender told", testQueueTTL},
	{"ManySenders", "many senders: each in its order, nothing confirmed that was not acknowledged", testManySenders},
	{"LostQueueConfirmation", "where the word about a job is lost its sender is told so", testLostQueueConfirmation},
}

// sending puts messages that are confirmed when somebody acknowledges them.
func sending(t testing.TB, ctx context.Context, c opener, to bus.Tube, bodies ...string) <-chan []bus.Result {
	t.Helper()
	ms := make([]bus.Message, len(bodies))
	for i, b := range bodies {
		ms[i] = bus.Message{Tube: to, Body: []byte(b)}
	}
	done := make(chan []bus.Result, 1)
	go func() { done <- c.Put(ctx, ms...) }()
	return done
}

func result(t testing.TB, done <-chan []bus.Result) []bus.Result {
	t.Helper()
	select {
	case rs := <-done:
		return rs
	case <-time.After(limit):
		t.Fatal("Put does not return")
		return nil
	}
}

func testConfirmedByAck(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	n := consume(t, dial(t, s.Driver), q)
	done := sending(t, within(t, limit), c, q, "a", "b")
	ds := receive(t, n, 2)
	if diff := cmp.Diff([]string{"a", "b"}, bodies(ds)); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
	ack(t, n, ds[0])
	select {
	case rs := <-done:
		t.Fatalf("Put returned %v before its second message was acknowledged", rs)
	case <-time.After(short):
	}
	ack(t, n, ds[1])
	for i, r := range result(t, done) {
		if r.Err != nil || r.ID != ds[i].ID {
			t.Errorf("message %d: %+v, delivered as %d", i, r, ds[i].ID)
		}
	}
	nothing(t, n)
}

// testNobodyThere checks that a message which nobody takes is its sender's
// alone again at the deadline.
func testNobodyThere(t *testing.T, s Server) {
	q := queue(t)
	b, log := open(t, s.Driver)
	for range 2 {
		testserver.Eventually(t, limit, func() error {
			begin := time.Now()
			err := result(t, sending(t, within(t, short), b, q, "x"))[0].Err
			if took := time.Since(begin); took > short+slack {
				t.Errorf("Put ended after %v, deadline %v", took, short)
			}
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Put: %v, want the deadline", err)
			}
			// Where the word that it was not taken is late, its sender does not know.
			if cbsdmq.CodeOf(err) != cbsdmq.CodeUnreachable {
				return fmt.Errorf("Put: %w (code %s), want code unreachable", err, cbsdmq.CodeOf(err))
			}
			return nil
		})
	}
	nothing(t, consume(t, b, q))
	ready(t, dial(t, s.Driver), q, 0)
	log.exactly(t, 0)
}

// testLateAck checks that a sender whose time is over while a consumer has its
// message does not know, and that the message is not delivered to another.
func testLateAck(t *testing.T, s Server) {
	q := queue(t)
	c, other := dial(t, s.Driver), dial(t, s.Driver)
	n := consume(t, other, q)
	ctx, cancel := context.WithCancel(t.Context())
	done := sending(t, ctx, c, q, "acknowledged", "given back")
	ds := receive(t, n, 2)
	cancel()
	for i, r := range result(t, done) {
		if !errors.Is(r.Err, context.Canceled) || cbsdmq.CodeOf(r.Err) == cbsdmq.CodeUnreachable {
			t.Errorf("message %d: %v; want an error that leaves it open", i, r.Err)
		}
	}
	ack(t, n, ds[0])
	if err := n.Release(within(t, limit), 0, ds[1]); err != nil {
		t.Fatalf("releasing: %v", err)
	}
	nothing(t, n)
}

// testConsumerGone checks that what a consumer had that has gone comes to
// another one and is confirmed once.
func testConsumerGone(t *testing.T, s Server) {
	q := queue(t)
	c, first := dial(t, s.Driver), dial(t, s.Driver)
	n := consume(t, first, q)
	done := sending(t, within(t, limit), c, q, "x")
	receive(t, n, 1)
	first.Close()
	second := consume(t, dial(t, s.Driver), q)
	ds := take(t, second, 1)
	if r := result(t, done)[0]; r.Err != nil || r.ID != ds[0].ID {
		t.Errorf("%+v, delivered as %d", r, ds[0].ID)
	}
	nothing(t, second)
}

// testSenderGone checks that a message whose sender has gone unconfirmed is not
// delivered.
func testSenderGone(t *testing.T, s Server) {
	q := queue(t)
	c, other := dial(t, s.Driver), dial(t, s.Driver)
	done := sending(t, within(t, limit), c, q, "x")
	ready(t, other, q, 1)
	c.Close()
	if err := result(t, done)[0].Err; !errors.Is(err, bus.ErrClosed) {
		t.Errorf("Put over Close: %v, want ErrClosed", err)
	}
	ready(t, other, q, 0)
	nothing(t, consume(t, other, q))
}

func testReleased(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	n := consume(t, dial(t, s.Driver), q)
	done := sending(t, within(t, limit), c, q, "x")
	for _, delay := range []time.Duration{0, time.Second} {
		begin := time.Now()
		if err := n.Release(within(t, limit), delay, receive(t, n, 1)...); err != nil {
			t.Fatalf("releasing: %v", err)
		}
		ds := receive(t, n, 1)
		if took := time.Since(begin); took < delay-delay/5 {
			t.Errorf("came back after %v, want %v", took, delay)
		}
		if err := n.Release(within(t, limit), 0, ds...); err != nil {
			t.Fatalf("releasing: %v", err)
		}
	}
	take(t, n, 1)
	if err := result(t, done)[0].Err; err != nil {
		t.Errorf("Put: %v", err)
	}
}

func testQueueTTL(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	begin := time.Now()
	done := make(chan error, 1)
	go func() {
		done <- c.Put(within(t, 2*limit), bus.Message{Tube: q, Body: []byte("x"), TTL: short})[0].Err
	}()
	// It may be gone before anybody has seen it there.
	testserver.Eventually(t, limit, func() error {
		if _, err := c.Inspect(within(t, limit), q); err != nil {
			return err
		}
		select {
		case err := <-done:
			if took := time.Since(begin); err == nil || took < short {
				t.Errorf("Put of a message that nobody took in %v: %v after %v", short, err, took)
			}
			return nil
		default:
			return errors.New("Put still waits")
		}
	})
	ready(t, c, q, 0)
	nothing(t, consume(t, c, q))
}

// testManySenders checks order, and that nothing is confirmed that was not
// acknowledged, nor twice.
func testManySenders(t *testing.T, s Server) {
	const senders, each, tubes = 8, 50, 4
	b, log := open(t, s.Driver)
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for j := range each {
				body := fmt.Sprintf("%d/%02d", i, j)
				if err := result(t, sending(t, within(t, limit), b, queue(t, i%tubes), body))[0].Err; err != nil {
					t.Errorf("putting %s: %v", body, err)
					return
				}
			}
		})
	}
	for i := range tubes {
		n := consume(t, b, queue(t, i))
		wg.Go(func() {
			var got []string
			for len(got) < senders/tubes*each {
				ds, err := n.Receive(within(t, limit), 16)
				if err != nil {
					t.Errorf("tube %d: %v", i, err)
					return
				}
				got = append(got, bodies(ds)...)
				if err := n.Ack(within(t, limit), ds...); err != nil {
					t.Errorf("tube %d: acknowledging: %v", i, err)
				}
			}
			for k := i; k < senders; k += tubes { // of one sender, in its order
				var mine []string
				for _, body := range got {
					if body[:2] == fmt.Sprintf("%d/", k) {
						mine = append(mine, body)
					}
				}
				if len(mine) != each || !slices.IsSorted(mine) {
					t.Errorf("of sender %d came %q", k, mine)
				}
			}
		})
	}
	wg.Wait()
	log.exactly(t, 0)
}

func testLostQueueConfirmation(t *testing.T, s Server) {
	q := queue(t)
	p, d := proxied(t, s)
	b, _ := open(t, d)
	n := consume(t, dial(t, s.Driver), q)
	first := sending(t, within(t, limit), b, q, "before")
	take(t, n, 1)
	if err := result(t, first)[0].Err; err != nil {
		t.Fatalf("putting: %v", err)
	}
	p.Mute(true)
	done := sending(t, within(t, limit), b, q, "x")
	take(t, n, 1)
	p.Cut()
	if err := result(t, done)[0].Err; err == nil || cbsdmq.CodeOf(err) == cbsdmq.CodeUnreachable {
		t.Errorf("Put whose confirmation was lost: %v; want an error that leaves it open", err)
	}
	p.Mute(false)
	last := sending(t, within(t, limit), b, q, "y")
	if got := bodies(take(t, n, 1)); got[0] != "y" {
		t.Errorf("received %q, want y: the bus sent again by itself", got)
	}
	if err := result(t, last)[0].Err; err != nil {
		t.Fatalf("putting: %v", err)
	}
	nothing(t, n)
}

// testKillQueue kills the server while messages go through it, and checks that
// the consumer has written down each one that was confirmed.
func testKillQueue(t *testing.T, s Server) {
	s.needs(t, s.Kill != nil && s.Start != nil)
	q := queue(t)
	b, log := open(t, s.Driver)
	var journal, confirmed sync.Map
	var count atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		n := consume(t, b, q)
		wg.Go(func() {
			for {
				ds, err := n.Receive(ctx, 16)
				if err != nil {
					return
				}
				for _, body := range bodies(ds) {
					journal.Store(body, true)
				}
				_ = n.Ack(ctx, ds...)
			}
		})
	}
	var senders sync.WaitGroup
	sendCtx, sendStop := context.WithCancel(t.Context())
	for i := range 4 {
		senders.Go(func() {
			for j := 0; sendCtx.Err() == nil; j++ {
				body := fmt.Sprintf("%d/%d", i, j)
				if b.Put(within(t, limit), bus.Message{Tube: q, Body: []byte(body)})[0].Err == nil {
					confirmed.Store(body, true)
					count.Add(1)
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
			t.Errorf("%d messages confirmed, want %d", count.Load(), target)
		}
	}
	for range 2 {
		more()
		s.Kill(t)
		s.Start(t)
	}
	more()
	sendStop()
	senders.Wait()
	stop()
	wg.Wait()
	confirmed.Range(func(body, _ any) bool {
		if _, ok := journal.Load(body); !ok {
			t.Errorf("%s was confirmed and is nowhere", body)
		}
		return true
	})
	log.exactly(t, 4)
}
