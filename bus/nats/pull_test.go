package nats

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

type dialled struct {
	*conn
	driver *Driver
	dir    string
}

// connect returns a connection to an embedded broker of the test's own.
func connect(t *testing.T) dialled {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "nats")
	e, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatalf("starting: %v", err)
	}
	d := newEmbeddedClient(bus.Config{EmbeddedDir: dir}, e)
	c, err := d.Dial(t.Context())
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	t.Cleanup(func() { c.Close(); e.Close() })
	return dialled{c.(*conn), d, dir}
}

func consume(t *testing.T, c dialled, tube bus.Tube) *consumer {
	t.Helper()
	k, err := c.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{tube}})
	if err != nil {
		t.Fatalf("consuming: %v", err)
	}
	return k.(*consumer)
}

// trip puts a message and receives it, and fails unless that takes less than
// AckWait.
func trip(t *testing.T, c dialled, k *consumer, tube bus.Tube, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), AckWait)
	defer cancel()
	if err := c.Put(ctx, bus.Message{Tube: tube, Body: []byte(body)})[0].Err; err != nil {
		t.Fatalf("putting %s: %v", body, err)
	}
	ds, err := k.Receive(ctx, 10)
	if err != nil || len(ds) != 1 || string(ds[0].Body) != body {
		t.Fatalf("receiving %s: %d messages, %v", body, len(ds), err)
	}
	if err := k.Ack(ctx, ds...); err != nil {
		t.Fatalf("acknowledging %s: %v", body, err)
	}
	testserver.Eventually(t, AckWait, func() error { // an acknowledgement is on its way for a while
		s, err := c.js.Stream(ctx, k.pulls[0].place.stream)
		if err != nil {
			return err
		}
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(k.pulls[0].place.subject))
		if err == nil && len(info.State.Subjects) > 0 {
			err = fmt.Errorf("messages are left: %v", info.State.Subjects)
		}
		return err
	})
}

// TestRequestExpires waits for a message through several requests that bring
// nothing, as an idle agent does all day.
func TestRequestExpires(t *testing.T) {
	c := connect(t)
	c.pullExpires = 20 * time.Millisecond
	q := bus.Tube{Name: "q"}
	k := consume(t, c, q)
	done := make(chan error, 1)
	go func() {
		ds, err := k.Receive(t.Context(), 10)
		if err == nil && string(ds[0].Body) != "late" {
			err = fmt.Errorf("received %q", ds[0].Body)
		}
		done <- err
	}()
	testserver.Eventually(t, 10*time.Second, func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if n := k.pulls[0].asked; n < 4 {
			return fmt.Errorf("%d requests made", n)
		}
		return nil
	})
	if err := c.Put(t.Context(), bus.Message{Tube: q, Body: []byte("late")})[0].Err; err != nil {
		t.Fatalf("putting: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestForgottenConsumer checks that a consumer goes on when the server has
// forgotten it, between two calls of Receive and during one.
func TestForgottenConsumer(t *testing.T) {
	for _, tube := range []bus.Tube{{Name: "q"}, {Name: "m", Kind: bus.Mailbox}} {
		t.Run(tube.Name, func(t *testing.T) {
			c := connect(t)
			k := consume(t, c, tube)
			trip(t, c, k, tube, "before")
			forget := func() {
				p := k.pulls[0]
				if err := c.js.DeleteConsumer(t.Context(), p.place.stream, p.place.consumer); err != nil {
					t.Fatalf("deleting the consumer: %v (the connection: %v)", err, c.Failed())
				}
			}
			forget()
			trip(t, c, k, tube, "between")
			done := make(chan error, 1)
			go func() {
				ds, err := k.Receive(t.Context(), 10)
				if err == nil {
					err = k.Ack(t.Context(), ds...)
				}
				done <- err
			}()
			waiting(t, c, k, 1)
			forget()
			if err := c.Put(t.Context(), bus.Message{Tube: tube, Body: []byte("during")})[0].Err; err != nil {
				t.Fatalf("putting: %v", err)
			}
			if err := <-done; err != nil {
				t.Errorf("a consumer that was forgotten while it waited: %v", err)
			}
			forget()
			if err := k.Close(); err != nil {
				t.Errorf("closing a forgotten consumer: %v", err)
			}
		})
	}
}

// TestTakeOver has a reader vanish with what it was given. Whoever comes next
// gets that first, and soon; where somebody else reads, it stays his.
func TestTakeOver(t *testing.T) {
	c := connect(t)
	q := bus.Tube{Name: "q"}
	put := func(bodies ...string) {
		t.Helper()
		for _, body := range bodies {
			if err := c.Put(t.Context(), bus.Message{Tube: q, Body: []byte(body)})[0].Err; err != nil {
				t.Fatalf("putting: %v", err)
			}
		}
	}
	receive := func(k *consumer, until time.Time, want ...string) []bus.Delivery {
		t.Helper()
		ctx, cancel := context.WithDeadline(t.Context(), until)
		defer cancel()
		var all []bus.Delivery
		for len(all) < len(want) {
			ds, err := k.Receive(ctx, len(want)-len(all))
			if err != nil {
				t.Fatalf("after %d of %q: %v", len(all), want, err)
			}
			all = append(all, ds...)
		}
		for i, d := range all {
			if string(d.Body) != want[i] {
				t.Errorf("message %d is %s, want %s", i+1, d.Body, want[i])
			}
		}
		return all
	}
	vanishing, err := c.driver.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put("a", "b", "c")
	gone := consume(t, dialled{conn: vanishing.(*conn)}, q)
	soon := time.Now().Add(AckWait) // what was handed out comes again by itself afterwards
	if err := gone.Ack(t.Context(), receive(gone, soon, "a", "b")[0]); err != nil {
		t.Fatal(err)
	}
	gone.conn.nc.Close()
	put("d")
	k := consume(t, c, q)
	held := receive(k, soon, "b", "c")

	other := consume(t, c, q)
	receive(other, time.Now().Add(AckWait), "d")
	if err := k.Ack(t.Context(), held...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), AckWait/5)
	defer cancel()
	if ds, err := other.Receive(ctx, 10); err == nil {
		t.Errorf("%d messages of another reader came", len(ds))
	}
}

// waiting waits until the server has n requests of k's first tube.
func waiting(t *testing.T, c dialled, k *consumer, n int) {
	t.Helper()
	p := k.pulls[0]
	testserver.Eventually(t, 10*time.Second, func() error {
		sc, err := c.js.Consumer(t.Context(), p.place.stream, p.place.consumer)
		if err != nil {
			return err
		}
		if got := sc.CachedInfo().NumWaiting; got != n {
			return fmt.Errorf("%d requests wait, want %d", got, n)
		}
		return nil
	})
}

// TestNothingIsHoarded checks that a consumer which nobody asks gives what it
// took in to one that somebody does ask.
func TestNothingIsHoarded(t *testing.T) {
	c := connect(t)
	q := bus.Tube{Name: "q"}
	idler := consume(t, c, q)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan error, 1)
	go func() {
		_, err := idler.Receive(ctx, 10)
		asked <- err
	}()
	waiting(t, c, idler, 1)
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Fatalf("receiving from an empty queue: %v", err)
	}
	// Its request is open for a moment still, and may take the message.
	worker := consume(t, c, q)
	trip(t, c, worker, q, "x")
	waiting(t, c, idler, 0)
	trip(t, c, worker, q, "y")
}

// TestStreams checks what the server is left with, which others rely on who
// look at it or have created it beforehand.
func TestStreams(t *testing.T) {
	c := connect(t)
	q, m := bus.Tube{Name: "cbsd.zpool1"}, bus.Tube{Name: "reply:1", Kind: bus.Mailbox}
	trip(t, c, consume(t, c, q), q, "x")
	trip(t, c, consume(t, c, m), m, "x")
	for _, want := range []jetstream.StreamConfig{
		{Name: "cbsdmq_q_cbsd=2Ezpool1", Subjects: []string{"cbsdmq.q.cbsd=2Ezpool1", "cbsdmq.keep.q.cbsd=2Ezpool1"}},
		{Name: "cbsdmq_mail", Subjects: []string{"cbsdmq.m.*", "cbsdmq.keep.m"}, MaxAge: MailboxMaxAge},
	} {
		s, err := c.js.Stream(t.Context(), want.Name)
		if err != nil {
			t.Errorf("%s: %v", want.Name, err)
			continue
		}
		got := s.CachedInfo().Config
		if fmt.Sprint(got.Subjects) != fmt.Sprint(want.Subjects) || got.MaxAge != want.MaxAge ||
			got.Retention != jetstream.WorkQueuePolicy || got.Storage != jetstream.FileStorage || !got.AllowMsgTTL {
			t.Errorf("%s: %+v", want.Name, got)
		}
	}
}

// TestAdministrator checks that a stream and a consumer that were there before
// are used as they are, and that a keeper does not get through.
func TestAdministrator(t *testing.T) {
	c := connect(t)
	s, err := c.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name:        "cbsdmq_q_q",
		Subjects:    []string{"cbsdmq.q.q", "cbsdmq.keep.q.q"},
		Retention:   jetstream.WorkQueuePolicy,
		AllowRollup: true,
		MaxMsgSize:  1000,
	})
	if err != nil {
		t.Fatalf("creating the stream: %v", err)
	}
	if _, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "cbsdmq", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatalf("creating the consumer: %v", err)
	}
	q := bus.Tube{Name: "q"}
	k := consume(t, c, q)
	for _, body := range []string{"a", "b", "c"} {
		trip(t, c, k, q, body)
	}
	r := c.Put(t.Context(), bus.Message{Tube: q, Body: make([]byte, 2000)}, bus.Message{Tube: q, Body: []byte("d"), TTL: time.Hour})
	if !errors.Is(r[0].Err, bus.ErrTooLarge) || r[1].Err != nil {
		t.Errorf("putting more than the stream takes, then less: %v, %v", r[0].Err, r[1].Err)
	}
	if s, err := c.js.Stream(t.Context(), "cbsdmq_q_q"); err != nil || !s.CachedInfo().Config.AllowMsgTTL {
		t.Errorf("the stream has not learnt of TTLs: %v", err)
	}
}

// TestFewAtOnce checks that messages are handed out while the server keeps a batch
// back, as it does where an administrator allows few without an acknowledgement:
// else they would come again.
func TestFewAtOnce(t *testing.T) {
	c := connect(t)
	s, err := c.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "cbsdmq_q_q", Subjects: []string{"cbsdmq.q.q", "cbsdmq.keep.q.q"}, Retention: jetstream.WorkQueuePolicy, AllowRollup: true,
	})
	if err != nil {
		t.Fatalf("creating the stream: %v", err)
	}
	_, err = s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
		Durable: "cbsdmq", AckPolicy: jetstream.AckExplicitPolicy, AckWait: AckWait, FilterSubject: "cbsdmq.q.q", MaxAckPending: 3,
	})
	if err != nil {
		t.Fatalf("creating the consumer: %v", err)
	}
	q := bus.Tube{Name: "q"}
	k := consume(t, c, q)
	const messages = 30
	for i := range messages {
		if r := c.Put(t.Context(), bus.Message{Tube: q, Body: fmt.Append(nil, i)})[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for next := 0; next < messages; {
		ds, err := k.Receive(ctx, 64)
		if err != nil {
			t.Fatalf("after %d of %d: %v", next, messages, err)
		}
		for _, d := range ds {
			if want := fmt.Sprint(next); string(d.Body) != want {
				t.Fatalf("received %s, want %s", d.Body, want)
			}
			next++
		}
		if err := k.Ack(ctx, ds...); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOneFile checks that a stream which is emptied again and again goes on in
// the file that it has, and that its keeper is not delivered.
func TestOneFile(t *testing.T) {
	c := connect(t)
	for _, tube := range []bus.Tube{{Name: "q"}, {Name: "m", Kind: bus.Mailbox}} {
		k := consume(t, c, tube)
		trip(t, c, k, tube, "first") // its file may go before the keeper comes
		trip(t, c, k, tube, "second")
		blocks := func() []string {
			files, err := filepath.Glob(filepath.Join(c.dir, "jetstream", "$G", "streams", k.pulls[0].place.stream, "msgs", "*.blk"))
			if err != nil || len(files) != 1 {
				t.Fatalf("files of the stream: %v, %v; want one", files, err)
			}
			return files
		}
		before := blocks()
		for i := range 20 {
			trip(t, c, k, tube, fmt.Sprint(i))
		}
		if after := blocks(); after[0] != before[0] {
			t.Errorf("%s: the stream has gone on from %s to %s", tube.Name, before[0], after[0])
		}
	}
}

// TestKeeperMoves checks that there is one keeper in each stream, and that it
// follows the messages.
func TestKeeperMoves(t *testing.T) {
	c := connect(t)
	q := bus.Tube{Name: "q"}
	k := consume(t, c, q)
	keeper := func() uint64 {
		m, err := k.pulls[0].stream.js.GetLastMsgForSubject(t.Context(), "cbsdmq.keep.q.q")
		if err != nil {
			t.Fatalf("looking for the keeper: %v", err)
		}
		return m.Sequence
	}
	trip(t, c, k, q, "x")
	first := keeper()
	body := strings.Repeat("x", keepEvery/4)
	for range 5 {
		trip(t, c, k, q, body)
	}
	testserver.Eventually(t, 10*time.Second, func() error {
		info, err := k.pulls[0].stream.js.Info(t.Context())
		if err == nil && (info.State.Msgs != 1 || keeper() <= first) {
			err = fmt.Errorf("%d messages, keeper %d after %d", info.State.Msgs, keeper(), first)
		}
		return err
	})
}

// TestIDsGoOn checks that ids do not begin again when a stream does.
func TestIDsGoOn(t *testing.T) {
	c := connect(t)
	q := bus.Tube{Name: "q"}
	first := c.Put(t.Context(), bus.Message{Tube: q}, bus.Message{Tube: q})[1]
	if first.Err != nil {
		t.Fatalf("putting: %v", first.Err)
	}
	if err := c.js.DeleteStream(t.Context(), "cbsdmq_q_q"); err != nil {
		t.Fatalf("deleting the stream: %v", err)
	}
	if err := c.Put(t.Context(), bus.Message{Tube: q})[0].Err; err == nil {
		t.Error("a message was confirmed that has no stream")
	}
	if c.Failed() == nil {
		t.Error("the connection goes on after an error")
	}
	testserver.Eventually(t, time.Second, func() error {
		if now := idBase(time.Now()); now <= first.ID {
			return fmt.Errorf("%d is not past %d", now, first.ID)
		}
		return nil
	})
	again, err := c.driver.Dial(t.Context())
	if err != nil {
		t.Fatalf("dialling again: %v", err)
	}
	defer again.Close()
	if r := again.Put(t.Context(), bus.Message{Tube: q})[0]; r.Err != nil || r.ID <= first.ID {
		t.Errorf("id %d after %d, %v", r.ID, first.ID, r.Err)
	}
}

func TestIDBase(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	a, b := idBase(now), idBase(now.Add(time.Second))
	if b != a+1000 || idBase(time.Unix(0, 0)) != 0 {
		t.Errorf("bases %d, %d, %d", a, b, idBase(time.Unix(0, 0)))
	}
}

// TestReleasedKeepsItsPlace gives messages back, many and then one at a time, as
// an agent does while its disk is full. What was put first comes first again.
func TestReleasedKeepsItsPlace(t *testing.T) {
	c := connect(t)
	q := bus.Tube{Name: "q"}
	k := consume(t, c, q)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	receive := func(max int) []bus.Delivery {
		t.Helper()
		ds, err := k.Receive(ctx, max)
		if err != nil {
			t.Fatalf("receiving: %v", err)
		}
		return ds
	}
	last := 0
	put := func() {
		t.Helper()
		last++
		if err := c.Put(ctx, bus.Message{Tube: q, Body: fmt.Appendf(nil, "%03d", last)})[0].Err; err != nil {
			t.Fatalf("putting: %v", err)
		}
	}
	for range 5 {
		put()
	}
	if err := k.Ack(ctx, receive(1)...); err != nil {
		t.Fatal(err)
	}
	for i, max := range []int{64, 1, 1, 2, 64, 1} {
		ds := receive(max)
		if got := string(ds[0].Body); got != "002" {
			t.Errorf("after %d times %s came first", i, got)
		}
		put()
		if err := k.Release(ctx, 0, ds...); err != nil {
			t.Fatalf("releasing: %v", err)
		}
	}
	both := receive(2) // what is acknowledged afterwards does not come again
	if err := errors.Join(k.Release(ctx, 0, both[0]), k.Ack(ctx, both[1])); err != nil {
		t.Fatal(err)
	}
	left := make(map[string]bool)
	for i := 2; i <= last; i++ {
		left[fmt.Sprintf("%03d", i)] = true
	}
	delete(left, "003")
	for len(left) > 0 {
		ds := receive(1)
		if got := string(ds[0].Body); !left[got] {
			t.Fatalf("%s came again", got)
		} else {
			delete(left, got)
		}
		if err := k.Ack(ctx, ds...); err != nil {
			t.Fatal(err)
		}
	}
}
