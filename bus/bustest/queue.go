package bustest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

func testAcked(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	put(t, c, q, "a", "b")
	n := consume(t, c, q)
	take(t, n, 2)
	if err := n.Close(); err != nil {
		t.Fatalf("closing: %v", err)
	}
	// Neither on this connection nor on another one.
	nothing(t, consume(t, c, q))
	c.Close()
	look, _ := open(t, s.Driver) // a server may end a connection while it is asked again and again
	ready(t, look, q, 0)
	nothing(t, consume(t, look, q))
}

func testUnacked(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	put(t, c, q, "kept", "lost")
	n := consume(t, c, q)
	ds := receive(t, n, 2)
	ack(t, n, ds[0])
	c.Close()
	c2 := dial(t, s.Driver)
	n2 := consume(t, c2, q)
	got := take(t, n2, 1)
	if diff := cmp.Diff(ds[1].Body, got[0].Body); diff != "" {
		t.Errorf("after the connection ended (-held +came back):\n%s", diff)
	}
	nothing(t, n2)
}

func testRelease(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	put(t, c, q, "x")
	n, other := consume(t, c, q), consume(t, c, q)
	d := receive(t, n, 1)
	if err := n.Release(within(t, limit), 0, d...); err != nil {
		t.Fatalf("releasing: %v", err)
	}
	d = receive(t, other, 1)
	const delay = time.Second
	begin := time.Now()
	if err := other.Release(within(t, limit), delay, d...); err != nil {
		t.Fatalf("releasing with delay: %v", err)
	}
	ds, err := other.Receive(within(t, short), 1)
	late := other
	if errors.Is(err, context.DeadlineExceeded) {
		late, err = n, nil
		ds = receive(t, late, 1)
	}
	if err != nil {
		t.Fatalf("receiving: %v", err)
	}
	// Some brokers count in seconds of their own clock.
	if got := time.Since(begin); got < delay-delay/5 {
		t.Errorf("came back after %v, want %v", got, delay)
	}
	ack(t, late, ds...)
	nothing(t, n)
}

// testPlace checks that what is given back comes again before what was put after
// it: an agent that cannot take a job for a while must not get them mixed up.
func testPlace(t *testing.T, s Server) {
	if !s.Driver.Caps().Order {
		s.spared(t, "messages may overtake each other")
	}
	q := queue(t)
	c := dial(t, s.Driver)
	want := numbered(20)
	put(t, c, q, want...)
	n := consume(t, c, q)
	for i, size := range []int{1, 1, 1, 3, 1, 5, 2, 1} {
		ds := receive(t, n, size)
		if diff := cmp.Diff(want[:size], bodies(ds)); diff != "" {
			t.Errorf("time %d (-want +got):\n%s", i+1, diff)
		}
		if err := n.Release(within(t, limit), 0, ds...); err != nil {
			t.Fatalf("releasing: %v", err)
		}
	}
	if diff := cmp.Diff(want, bodies(take(t, n, len(want)))); diff != "" {
		t.Errorf("in the end (-want +got):\n%s", diff)
	}
}

func testAge(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	begin := time.Now()
	put(t, c, q, "x")
	n := consume(t, c, q)
	d := receive(t, n, 1)[0]
	age := func() time.Duration {
		age, err := n.Age(within(t, limit), d)
		if err != nil {
			t.Fatalf("asking for the age: %v", err)
		}
		if most := time.Since(begin) + time.Second; age < 0 || age > most {
			t.Fatalf("age %v, want 0 to %v", age, most)
		}
		return age
	}
	testserver.Eventually(t, limit, func() error {
		if age := age(); age < time.Second {
			return fmt.Errorf("age is still %v after %v", age, time.Since(begin))
		}
		return nil
	})
	ack(t, n, d)
}

// testIDs checks that the number of a message is the same to its sender and
// its receiver.
func testIDs(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	ids := put(t, c, q, "a", "b", "c")
	ds := take(t, consume(t, c, q), 3)
	slices.SortFunc(ds, func(a, b bus.Delivery) int { return cmpBytes(a.Body, b.Body) })
	for i, d := range ds {
		if d.Tube != q.Name {
			t.Errorf("delivery of tube %q, want %q", d.Tube, q.Name)
		}
		if d.ID != ids[i] {
			t.Errorf("message %q was put as %d and delivered as %d", d.Body, ids[i], d.ID)
		}
	}
	if ids[0] != 0 && (ids[0] == ids[1] || ids[1] == ids[2] || ids[0] == ids[2]) {
		t.Errorf("ids %v are not distinct", ids)
	}
}

func cmpBytes(a, b []byte) int { return slices.Compare(a, b) }

func testBatches(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	n := consume(t, c, q)
	want := numbered(200)
	put(t, c, q, want[:150]...)
	put(t, c, q, want[150:]...)
	ctx := within(t, limit)
	var got []string
	for i, sizes := 0, []int{1, 2, 3, 64, 200}; len(got) < len(want); i++ {
		max := sizes[min(i, len(sizes)-1)]
		ds, err := n.Receive(ctx, max)
		if err != nil {
			t.Fatalf("receiving: %v", err)
		}
		if len(ds) == 0 || len(ds) > max {
			t.Fatalf("received %d messages, want 1 to %d", len(ds), max)
		}
		got = append(got, bodies(ds)...)
		ack(t, n, ds...)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
}

func testOrder(t *testing.T, s Server) {
	if !s.Driver.Caps().Order {
		s.cannot(t, "messages may overtake each other")
	}
	q := queue(t)
	c := dial(t, s.Driver)
	n := consume(t, c, q)
	want := numbered(200)
	for i := 0; i < len(want); i += 20 {
		put(t, c, q, want[i:i+20]...)
	}
	if diff := cmp.Diff(want, bodies(take(t, n, len(want)))); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
}

func testPriority(t *testing.T, s Server) {
	if s.Urgent == nil {
		s.cannot(t, "messages have none")
	}
	q := queue(t)
	c := dial(t, s.Driver)
	put(t, c, q, "a", "b", "c")
	s.Urgent(t, q.Name, "urgent")
	if got := bodies(take(t, consume(t, c, q), 4)); got[0] != "urgent" {
		t.Errorf("received %q, want the urgent one first", got)
	}
}

func testShare(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	want := numbered(24)
	put(t, c, q, want...)
	ns := []bus.Consumer{consume(t, c, q), consume(t, dial(t, s.Driver), q)}
	var got []string
	for i := range want {
		got = append(got, bodies(take(t, ns[i%2], 1))...)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
	nothing(t, ns[0])
	nothing(t, ns[1])
}

// testAllBusy checks that what waits goes to who is free: each of four consumers
// works on one message, and none holds one that another could have.
func testAllBusy(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	ns := make([]bus.Consumer, 4)
	for i := range ns {
		ns[i] = consume(t, dial(t, s.Driver), q)
	}
	put(t, c, q, numbered(8)...)
	for range 2 {
		var held [][]bus.Delivery
		for _, n := range ns {
			held = append(held, receive(t, n, 1))
		}
		for i, n := range ns {
			ack(t, n, held[i]...)
		}
	}
	// What one has room for and does not take is another's.
	put(t, c, q, "x")
	ds, err := ns[0].Receive(within(t, limit), 10)
	if err != nil {
		t.Fatalf("receiving: %v", err)
	}
	ack(t, ns[0], ds...)
	put(t, c, q, numbered(9)...)
	take(t, ns[1], 9)
}

func testManyTubes(t *testing.T, s Server) {
	const tubes, each = 32, 8
	c := dial(t, s.Driver)
	var wg sync.WaitGroup
	var consumers [tubes]bus.Consumer
	for i := range tubes {
		consumers[i] = consume(t, c, queue(t, i))
	}
	for i, n := range consumers { // when all are there: some brokers take a while
		wg.Go(func() {
			ctx := within(t, limit)
			for got := 0; got < each; {
				ds, err := n.Receive(ctx, each)
				if err != nil {
					t.Errorf("tube %d: %v", i, err)
					return
				}
				for _, d := range ds {
					if want := fmt.Sprint("for ", i); string(d.Body) != want {
						t.Errorf("tube %d: received %q, want %q", i, d.Body, want)
					}
				}
				got += len(ds)
				if err := n.Ack(ctx, ds...); err != nil {
					t.Errorf("tube %d: acknowledging: %v", i, err)
				}
			}
		})
	}
	// All tubes in turn within one Put.
	for range each {
		var ms []bus.Message
		for i := range tubes {
			ms = append(ms, bus.Message{Tube: queue(t, i), Body: fmt.Append(nil, "for ", i)})
		}
		for i, r := range c.Put(within(t, limit), ms...) {
			if r.Err != nil {
				t.Fatalf("putting into tube %d: %v", i, r.Err)
			}
		}
	}
	wg.Wait()
}

// testSeveralTubes checks that a consumer of several tubes knows which one a
// message came from.
func testSeveralTubes(t *testing.T, s Server) {
	a, b := queue(t, "a"), queue(t, "b")
	c := dial(t, s.Driver)
	put(t, c, a, numbered(5)...)
	n := consume(t, c, a, b)
	put(t, c, b, numbered(5)...)
	got := map[string]int{}
	for _, d := range take(t, n, 10) {
		got[d.Tube]++
	}
	if diff := cmp.Diff(map[string]int{a.Name: 5, b.Name: 5}, got); diff != "" {
		t.Errorf("messages by tube (-want +got):\n%s", diff)
	}
	nothing(t, n)
}

func testConcurrentPut(t *testing.T, s Server) {
	const putters, each = 8, 50
	q := queue(t)
	c := dial(t, s.Driver)
	n := consume(t, c, q)
	var wg sync.WaitGroup
	for i := range putters {
		wg.Go(func() {
			ctx := within(t, limit)
			for j := range each {
				r := c.Put(ctx, bus.Message{Tube: q, Body: fmt.Appendf(nil, "%d/%02d", i, j)})[0]
				if r.Err != nil {
					t.Errorf("putter %d: %v", i, r.Err)
					return
				}
			}
		})
	}
	seen := map[string]int{}
	for _, body := range bodies(take(t, n, putters*each)) {
		seen[body]++
	}
	wg.Wait()
	if len(seen) != putters*each {
		t.Errorf("%d different messages, want %d", len(seen), putters*each)
	}
	nothing(t, n)
}

func testReceiveContext(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	n := consume(t, c, q)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if ds, err := n.Receive(ended, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Receive with an ended context: %q, %v", bodies(ds), err)
	}
	for range 3 {
		begin := time.Now()
		nothing(t, n)
		if took := time.Since(begin); took > short+slack {
			t.Errorf("Receive ended %v after its deadline", took-short)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer time.AfterFunc(short, cancel).Stop()
	if ds, err := n.Receive(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Receive with a context that ended: %q, %v", bodies(ds), err)
	}
	put(t, c, q, "still usable")
	take(t, n, 1)
	nothing(t, n)
}

func testCancelledReceive(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	n := consume(t, c, q)
	want := numbered(100)
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, body := range want {
			if r := c.Put(within(t, limit), bus.Message{Tube: q, Body: []byte(body)}); r[0].Err != nil {
				t.Errorf("putting: %v", r[0].Err)
				return
			}
		}
	})
	seen := map[string]bool{}
	for i, until := 0, time.Now().Add(limit); len(seen) < len(want); i++ {
		if time.Now().After(until) {
			t.Fatalf("%d of %d messages arrived, and no more", len(seen), len(want))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%7)*200*time.Microsecond)
		ds, err := n.Receive(ctx, 1+i%3)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("receiving: %v", err)
		}
		for _, body := range bodies(ds) {
			seen[body] = true
			until = time.Now().Add(limit)
		}
		ack(t, n, ds...)
	}
	wg.Wait()
	nothing(t, n)
	look, _ := open(t, s.Driver)
	ready(t, look, q, 0)
}

// testAckAfterCancel checks that what was received before a Receive that was
// cancelled can still be acknowledged and released.
func testAckAfterCancel(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	n := consume(t, c, q)
	put(t, c, q, "a", "b")
	ds := receive(t, n, 2)
	nothing(t, n)
	ack(t, n, ds[0])
	nothing(t, n)
	if err := n.Release(within(t, limit), 0, ds[1]); err != nil {
		t.Fatalf("releasing: %v", err)
	}
	got := take(t, n, 1)
	if string(got[0].Body) != string(ds[1].Body) {
		t.Errorf("received %q, want the released %q", got[0].Body, ds[1].Body)
	}
	n.Close()
	nothing(t, consume(t, c, q))
}

func testCancelledPut(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	put(t, c, q, "first")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if r := c.Put(ended, bus.Message{Tube: q, Body: []byte("no")})[0]; !errors.Is(r.Err, context.Canceled) {
		t.Errorf("Put with an ended context: %v", r.Err)
	}
	for i := range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*10*time.Microsecond)
		r := c.Put(ctx, bus.Message{Tube: q, Body: []byte("perhaps")})[0]
		if r.Err != nil && !errors.Is(r.Err, context.DeadlineExceeded) {
			t.Errorf("Put with a short deadline: %v", r.Err)
		}
		cancel()
	}
	// Nor does it end the puts of others.
	var others sync.WaitGroup
	others.Go(func() {
		for range 100 {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Microsecond)
			c.Put(ctx, bus.Message{Tube: q, Body: []byte("perhaps")})
			cancel()
		}
	})
	for range 50 {
		put(t, c, q, "other")
	}
	others.Wait()
	put(t, c, q, "last")
	got := map[string]int{}
	n := consume(t, c, q)
	for got["last"] == 0 {
		got[string(take(t, n, 1)[0].Body)]++
	}
	if got["first"] != 1 || got["other"] != 50 || got["perhaps"] > 120 {
		t.Errorf("received %v, want one first, 50 others and at most 120 perhaps", got)
	}
}

func testCloseUnblocks(t *testing.T, s Server) {
	c := dial(t, s.Driver)
	n, m := consume(t, c, queue(t, 1)), consume(t, c, queue(t, 2))
	for _, x := range []struct {
		name  string
		n     bus.Consumer
		close func() error
	}{{"Consumer.Close", n, n.Close}, {"Conn.Close", m, c.Close}} {
		defer time.AfterFunc(short, func() { x.close() }).Stop()
		begin := time.Now()
		ds, err := x.n.Receive(within(t, limit), 1)
		if took := time.Since(begin); !errors.Is(err, bus.ErrClosed) || took > short+slack {
			t.Errorf("Receive over %s: %q, %v after %v; want ErrClosed", x.name, bodies(ds), err, took)
		}
		if _, err := x.n.Receive(within(t, limit), 1); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("Receive after %s: %v, want ErrClosed", x.name, err)
		}
		if err := x.n.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
	}
	if r := c.Put(within(t, limit), bus.Message{Tube: queue(t, 1)})[0]; r.Err == nil {
		t.Error("Put after Close has no error")
	}
}

func testInspect(t *testing.T, s Server) {
	q := queue(t)
	c := dial(t, s.Driver)
	look, _ := open(t, s.Driver) // a server may end a connection while it is asked again and again
	ready(t, look, q, 0)         // and one that is slow to answer leaves it unknown
	info, err := c.Inspect(within(t, limit), q)
	if err != nil {
		t.Fatalf("inspecting an unused tube: %v", err)
	}
	if info.Server == "" {
		t.Error("the server has no name")
	}
	if !info.Durable && info.Advice == "" {
		t.Error("the broker is not durable and there is no advice")
	}
	if info.Ready > 0 || info.Consumers > 0 {
		t.Errorf("unused tube: %d ready, %d consumers", info.Ready, info.Consumers)
	}
	ids := put(t, c, q, numbered(7)...)
	ready(t, look, q, 7)
	if info.IDBase > ids[0] {
		t.Errorf("ids begin at %d, but %d was given", info.IDBase, ids[0])
	}
	n, m := consume(t, c, q), consume(t, c, q)
	if info, err = c.Inspect(within(t, limit), q); err != nil {
		t.Fatalf("inspecting: %v", err)
	}
	if info.Consumers != 2 && info.Consumers != -1 {
		t.Errorf("%d consumers, want 2 or -1", info.Consumers)
	}
	take(t, n, 7)
	ready(t, look, q, 0)
	n.Close()
	m.Close()
	testserver.Eventually(t, limit, func() error {
		info, err := look.Inspect(within(t, limit), q)
		if err == nil && info.Consumers > 0 {
			err = fmt.Errorf("%d consumers after both were closed", info.Consumers)
		}
		return err
	})
}
