package kafka

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

const (
	// idle is how long a consumer keeps for its next Receive what came too late
	// for the one before, or was given back. Then it goes to others.
	idle = 2 * time.Second

	// longPoll is how long the broker is asked to wait for messages.
	longPoll = time.Second
)

// consumer has a source for each tube, or for each broker that has mailboxes.
// Sources fetch while somebody receives; what has come is in ready, so a ctx that
// ends loses no message.
type consumer struct {
	conn    *conn
	o       bus.ConsumeOptions
	sources []source
	wake    chan struct{} // holds a token when there is something to look at
	closing chan struct{}

	mu     sync.Mutex
	want   int       // messages that Receive waits for, 0 = nobody does
	until  time.Time // when it gives up, if it does
	ready  []*message
	held   map[*message]bool // handed out and not settled
	timer  *time.Timer       // ends the wait for the next Receive
	later  map[*time.Timer]struct{}
	closed bool
}

// message is what the Ref of a bus.Delivery points to.
type message struct {
	*kgo.Record
	source source
	tube   string
	id     uint64
}

// source brings messages into ready. Its methods but for close are called with
// consumer.mu held, and do not wait.
type source interface {
	look()                // want, until or closed has changed
	accept(ms []*message) // the broker is to forget them
	rest(m *message) bool // nobody asks for m: report whether it may stay in ready
	close(ctx context.Context)
}

// Consume makes the topics that are not there.
func (c *conn) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	if err := c.Usable(); err != nil {
		return nil, err
	}
	for _, t := range o.Tubes {
		if err := c.prepare(ctx, t); err != nil {
			return nil, err
		}
	}
	k := &consumer{
		conn: c, o: o, wake: make(chan struct{}, 1), closing: make(chan struct{}),
		held: map[*message]bool{}, later: map[*time.Timer]struct{}{},
	}
	k.timer = time.AfterFunc(time.Hour, k.rest)
	if err := c.Add(k); err != nil {
		k.timer.Stop()
		return nil, err
	}
	err := k.open(ctx)
	if err == nil {
		err = c.Usable() // Close may not have seen all of it
	}
	if err != nil {
		k.Close()
		return nil, c.reason(ctx, "consuming", err)
	}
	return k, nil
}

func (k *consumer) open(ctx context.Context) error {
	var mailboxes []bus.Tube
	for _, t := range k.o.Tubes {
		if t.Kind == bus.Mailbox {
			mailboxes = append(mailboxes, t)
			continue
		}
		s, err := k.openShare(ctx, t.Name)
		if err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
		k.add(s)
	}
	if len(mailboxes) == 0 {
		return nil
	}
	return k.openReaders(ctx, mailboxes)
}

func (k *consumer) add(s source) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sources = append(k.sources, s)
}

// Receive returns what has come, or waits for it.
func (k *consumer) Receive(ctx context.Context, max int) ([]bus.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.want = 0
		if !k.closed && len(k.ready) > 0 {
			k.timer.Reset(idle)
		}
	}()
	for {
		ds, err := k.next(ctx, max)
		if err != nil || len(ds) > 0 {
			return ds, err
		}
		select {
		case <-k.wake:
		case <-k.closing:
		case <-k.conn.Dead():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// next hands out up to max of what is ready, or sees to it that more comes.
func (k *consumer) next(ctx context.Context, max int) ([]bus.Delivery, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, bus.ErrClosed
	}
	if err := k.conn.Failed(); err != nil {
		return nil, err
	}
	n := min(max, len(k.ready))
	if n == 0 {
		k.want = max
		k.until, _ = ctx.Deadline()
		k.lookAll()
		return nil, nil
	}
	ds := make([]bus.Delivery, n)
	for i, m := range k.ready[:n] {
		ds[i] = k.delivery(m)
		k.held[m] = true
		k.ready[i] = nil
	}
	k.ready = k.ready[n:]
	return ds, nil
}

func (k *consumer) lookAll() {
	for _, s := range k.sources {
		s.look()
	}
}

func (k *consumer) delivery(m *message) bus.Delivery {
	d := bus.Delivery{Tube: m.tube, ID: m.id, Body: m.Value, Size: len(m.Value), Ref: m}
	switch {
	case k.o.MaxBody > 0 && d.Size > k.o.MaxBody:
		d.Body = nil
	case d.Body == nil:
		d.Body = []byte{}
	}
	return d
}

// wanted returns how many messages to ask the broker for, and how long it may
// wait for them; 0 where nobody waits. k.mu is held.
func (k *consumer) wanted() (n int, wait time.Duration) {
	if k.closed {
		return 0, 0
	}
	wait = longPoll
	if !k.until.IsZero() {
		wait = min(wait, max(time.Millisecond, time.Until(k.until)))
	}
	return k.want, wait
}

// came takes messages in, those that are given back in their place. k.mu is held.
func (k *consumer) came(ms []*message) {
	if len(ms) == 0 || k.closed {
		return
	}
	k.ready = append(k.ready, ms...)
	slices.SortStableFunc(k.ready, func(a, b *message) int { return cmp.Compare(a.Offset, b.Offset) })
	if k.want == 0 {
		k.timer.Reset(idle)
	}
	k.want = 0 // Receive asks again if it wants more
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// rest is called when nobody has asked for a while.
func (k *consumer) rest() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.want > 0 || k.closed {
		return
	}
	kept := k.ready[:0]
	for _, m := range k.ready {
		if m.source.rest(m) {
			kept = append(kept, m)
		}
	}
	clear(k.ready[len(kept):])
	k.ready = kept
}

// Ack tells the broker, and does not wait for its word.
func (k *consumer) Ack(_ context.Context, ds ...bus.Delivery) error {
	return k.settle(ds, source.accept)
}

// Release keeps the messages here until delay has passed, as Kafka knows none, and
// has them received again, before what was put after them. If the connection ends
// they go to others at once.
func (k *consumer) Release(_ context.Context, delay time.Duration, ds ...bus.Delivery) error {
	return k.settle(ds, func(_ source, ms []*message) {
		if delay <= 0 {
			k.came(ms)
			return
		}
		var t *time.Timer
		t = time.AfterFunc(delay, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			delete(k.later, t)
			k.came(ms)
		})
		k.later[t] = struct{}{}
	})
}

// settle calls f with the messages of each source, which are ours no longer.
func (k *consumer) settle(ds []bus.Delivery, f func(source, []*message)) error {
	if err := k.conn.Failed(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return bus.ErrClosed
	}
	var gone error
	var batch []*message
	for _, d := range ds {
		m, ok := d.Ref.(*message)
		if !ok || !k.held[m] {
			gone = bus.ErrGone
			continue
		}
		delete(k.held, m)
		if len(batch) > 0 && batch[0].source != m.source {
			f(batch[0].source, batch)
			batch = nil
		}
		batch = append(batch, m)
	}
	if len(batch) > 0 {
		f(batch[0].source, batch)
	}
	return gone
}

// Age is by the broker's clock and ours.
func (k *consumer) Age(_ context.Context, d bus.Delivery) (time.Duration, error) {
	m, ok := d.Ref.(*message)
	if !ok {
		return 0, bus.ErrGone
	}
	if err := k.conn.Failed(); err != nil {
		return 0, err
	}
	return max(0, time.Since(putAt(m.Record))), nil
}

// Close gives back what was not acknowledged.
func (k *consumer) Close() error { return wire.CloseConsumer(k) }

// Shut is Close, until ctx ends.
func (k *consumer) Shut(ctx context.Context) error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil
	}
	k.closed = true
	k.timer.Stop()
	for t := range k.later {
		t.Stop()
	}
	close(k.closing)
	k.lookAll()
	sources := k.sources
	k.mu.Unlock()
	k.conn.Remove(k)
	var wg sync.WaitGroup
	for _, s := range sources {
		wg.Go(func() { s.close(ctx) })
	}
	wg.Wait()
	return nil
}
