package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

const (
	// idle is how long after a Receive a consumer goes on to take messages in,
	// for the next one. Then what it holds goes to others.
	idle = 100 * time.Millisecond

	// prefetch bounds what the broker hands out beyond what is being worked on.
	prefetch = 128
)

// consumer has a channel of its own. While somebody receives, and a moment
// longer, it subscribes to its tubes; what has come is in ready, so a ctx that
// ends loses no message.
type consumer struct {
	conn    *conn
	o       bus.ConsumeOptions
	ch      *amqp.Channel
	wake    chan struct{} // holds a token when there is something to look at
	closing chan struct{}

	collecting sync.WaitGroup

	mu      sync.Mutex
	subs    int // number of the latest subscription
	streams int // deliveries of how many tubes still come from the broker
	on      bool
	window  int // what the broker hands out at most without an acknowledgement
	ready   []amqp.Delivery
	unacked map[uint64]bool // tags that were handed out
	back    []uint64        // tags that go back when the subscription has ended
	calls   bool            // Receive runs
	timer   *time.Timer     // ends the subscription
	later   map[*time.Timer]struct{}
	closed  bool
}

// Consume makes the queues that are not there.
func (c *conn) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	defer c.Guard(ctx)()
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
		window: prefetch, unacked: map[uint64]bool{}, later: map[*time.Timer]struct{}{},
	}
	err := c.Call(ctx, "consuming", k.open, func() {
		if k.ch != nil {
			_ = k.ch.Close()
		}
	})
	if err != nil {
		return nil, c.denied(err)
	}
	k.timer = time.AfterFunc(idle, k.rest)
	go c.watch(k.ch.NotifyClose(make(chan *amqp.Error, 1)), k.closing)
	if err := c.Add(k); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// open makes the channel, and subscribes at once: so we know that we may.
func (k *consumer) open() (err error) {
	if k.ch, err = k.conn.amqp.Channel(); err != nil {
		return err
	}
	// What the broker refuses is heard of with a later call, or behind it.
	closed := k.ch.NotifyClose(make(chan *amqp.Error, 1))
	defer func() {
		if errors.Is(err, amqp.ErrClosed) {
			if why := <-closed; why != nil {
				err = why
			}
		}
	}()
	for _, t := range k.o.Tubes {
		if err := k.conn.assert(k.ch, t); err != nil {
			return err
		}
		if t.Kind == bus.Mailbox { // a queue was seen to before
			if err := shadow(k.ch, t, true); err != nil {
				return err
			}
		}
	}
	if err := k.ch.Qos(k.window, 0, false); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.subscribe(true)
}

// Receive returns what has come, or waits for it.
func (k *consumer) Receive(ctx context.Context, max int) ([]bus.Delivery, error) {
	defer k.conn.Guard(ctx)()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.calls = true
	k.timer.Stop()
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.calls = false
		if !k.closed {
			k.timer.Reset(idle)
		}
	}()
	for {
		ds, err := k.next(max)
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
func (k *consumer) next(max int) ([]bus.Delivery, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, bus.ErrClosed
	}
	if err := k.conn.Failed(); err != nil {
		return nil, err
	}
	n := min(max, len(k.ready))
	if len(k.back) > 0 {
		n = 0 // what is ready goes back too: it is behind that
	}
	switch {
	case n > 0:
		return k.take(n), nil
	case !k.on && k.streams == 0:
		if err := k.subscribe(false); err != nil {
			return nil, k.conn.Fail(err)
		}
	case k.on && len(k.unacked) >= k.window: // it takes a new subscription to have more
		k.on = false
		go k.unsubscribe(k.tags(), len(k.unacked)+prefetch)
	}
	return nil, nil
}

// take hands out n of what is ready. k.mu is held.
func (k *consumer) take(n int) []bus.Delivery {
	ds := make([]bus.Delivery, n)
	for i, d := range k.ready[:n] {
		ds[i] = k.delivery(d)
		k.unacked[d.DeliveryTag] = true
		k.ready[i] = amqp.Delivery{}
	}
	k.ready = k.ready[n:]
	return ds
}

func (k *consumer) delivery(d amqp.Delivery) bus.Delivery {
	bd := bus.Delivery{Tube: d.RoutingKey, Body: d.Body, Size: len(d.Body), Ref: &ref{k, d.DeliveryTag, putAt(d)}}
	bd.ID, _ = strconv.ParseUint(d.MessageId, 10, 64)
	switch {
	case k.o.MaxBody > 0 && bd.Size > k.o.MaxBody:
		bd.Body = nil
	case bd.Body == nil:
		bd.Body = []byte{}
	}
	return bd
}

// ref is the Ref of a bus.Delivery.
type ref struct {
	consumer *consumer
	tag      uint64
	put      time.Time
}

// putAt is when a message was put; of a message that does not say, that was long
// ago.
func putAt(d amqp.Delivery) time.Time {
	if us, ok := d.Headers[putHeader].(int64); ok {
		return time.UnixMicro(us)
	}
	if !d.Timestamp.IsZero() {
		return d.Timestamp
	}
	return time.Unix(0, 0)
}

// subscribe has the broker send what is in the tubes, and may wait for its word.
// k.mu is held.
func (k *consumer) subscribe(wait bool) error {
	k.subs++
	for i, t := range k.o.Tubes {
		came, err := k.ch.Consume(t.Name, k.tag(i), false, false, false, !wait, nil)
		if err != nil {
			return fmt.Errorf("consuming %s: %w", t.Name, err)
		}
		k.streams++
		k.collecting.Go(func() { k.collect(came) })
	}
	k.on = true
	return nil
}

func (k *consumer) tag(i int) string { return fmt.Sprintf("cbsdmq-%d-%d", k.subs, i) }

func (k *consumer) tags() []string {
	tags := make([]string, len(k.o.Tubes))
	for i := range tags {
		tags[i] = k.tag(i)
	}
	return tags
}

// unsubscribe ends the subscription with these tags; collect sees its end. The next
// one has the given window. Both wait for the broker, behind what is on its way.
func (k *consumer) unsubscribe(tags []string, window int) {
	var err error
	k.mu.Lock()
	change := window != k.window
	k.window = window
	k.mu.Unlock()
	if change {
		err = k.ch.Qos(window, 0, false)
	}
	for _, tag := range tags {
		if err == nil {
			err = k.ch.Cancel(tag, false)
		}
	}
	if err != nil {
		_ = k.conn.Fail(fmt.Errorf("ending a subscription: %w", err))
	}
}

// collect takes the deliveries of one subscription until it has ended.
func (k *consumer) collect(came <-chan amqp.Delivery) {
	for d := range came {
		k.mu.Lock()
		k.ready = append(k.ready, d)
		k.signal()
		k.mu.Unlock()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.streams--; k.streams > 0 {
		return
	}
	k.on = false
	if !k.closed && (!k.calls || len(k.back) > 0) {
		k.giveBack()
	}
	k.signal()
}

func (k *consumer) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// rest is called when nobody has asked for a while.
func (k *consumer) rest() {
	k.mu.Lock()
	if k.calls || k.closed || !k.on || k.conn.Failed() != nil {
		k.mu.Unlock()
		return
	}
	k.on = false
	tags, window := k.tags(), max(prefetch, len(k.unacked)+prefetch/2)
	k.mu.Unlock()
	k.unsubscribe(tags, window)
}

// giveBack returns what is ready, and what was to go back, to its tubes: each
// message has its place there again. k.mu is held. An error means the end of the
// connection, which does the same.
func (k *consumer) giveBack() {
	for _, d := range k.ready {
		k.back = append(k.back, d.DeliveryTag)
	}
	_ = k.nack(k.back)
	k.back, k.ready = nil, nil
}

// Ack tells the broker, and does not wait for its word.
func (k *consumer) Ack(ctx context.Context, ds ...bus.Delivery) error {
	defer k.conn.Guard(ctx)()
	return k.settle(ds, func(tags []uint64) error {
		if highest := slices.Max(tags); len(tags) > 1 && k.allUpTo(highest) {
			return k.ch.Ack(highest, true)
		}
		return k.each(tags, func(tag uint64) error { return k.ch.Ack(tag, false) })
	})
}

// allUpTo reports whether nothing is outstanding that has a lower tag. Of several
// tubes something may be on its way to us that was sent before. k.mu is held.
func (k *consumer) allUpTo(tag uint64) bool {
	if len(k.o.Tubes) > 1 || len(k.back)+len(k.later) > 0 || len(k.ready) > 0 && k.ready[0].DeliveryTag < tag {
		return false
	}
	for t := range k.unacked {
		if t < tag {
			return false
		}
	}
	return true
}

// each calls f, which sends a word, for all tags.
func (k *consumer) each(tags []uint64, f func(tag uint64) error) (err error) {
	sent := k.conn.wire.Together(func() {
		for _, t := range tags {
			if err == nil {
				err = f(t)
			}
		}
	})
	return errors.Join(err, sent)
}

// Release has the messages delivered again. All that came behind them goes back
// first, with the subscription, so that they keep their place. RabbitMQ knows no
// delay: they are kept here until it has passed, and given back at once if the
// connection ends.
func (k *consumer) Release(ctx context.Context, delay time.Duration, ds ...bus.Delivery) error {
	defer k.conn.Guard(ctx)()
	return k.settle(ds, func(tags []uint64) error {
		if delay <= 0 {
			k.back = append(k.back, tags...)
			switch {
			case k.streams == 0:
				k.giveBack()
			case k.on:
				k.on = false
				go k.unsubscribe(k.tags(), k.window)
			}
			return nil
		}
		var t *time.Timer
		t = time.AfterFunc(delay, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			delete(k.later, t)
			_ = k.nack(tags)
		})
		k.later[t] = struct{}{}
		return nil
	})
}

// nack is for settle. k.mu is held.
func (k *consumer) nack(tags []uint64) error {
	return k.each(tags, func(tag uint64) error { return k.ch.Nack(tag, false, true) })
}

// settle calls f with the tags of ds, which are ours no longer.
func (k *consumer) settle(ds []bus.Delivery, f func(tags []uint64) error) error {
	if err := k.conn.Failed(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return bus.ErrClosed
	}
	var gone error
	tags := make([]uint64, 0, len(ds))
	for _, d := range ds {
		r, ok := d.Ref.(*ref)
		if !ok || r.consumer != k || !k.unacked[r.tag] {
			gone = bus.ErrGone
			continue
		}
		delete(k.unacked, r.tag)
		tags = append(tags, r.tag)
	}
	if len(tags) == 0 {
		return gone
	}
	if err := f(tags); err != nil {
		return k.conn.Fail(fmt.Errorf("acknowledging: %w", err))
	}
	return gone
}

// Age is by the clocks of sender and receiver: RabbitMQ tells no time.
func (k *consumer) Age(_ context.Context, d bus.Delivery) (time.Duration, error) {
	r, ok := d.Ref.(*ref)
	if !ok || r.consumer != k {
		return 0, bus.ErrGone
	}
	if err := k.conn.Failed(); err != nil {
		return 0, err
	}
	return max(0, time.Since(r.put)), nil
}

// Close gives back what was not acknowledged.
func (k *consumer) Close() error { return wire.CloseConsumer(k) }

// Shut is Close within ctx.
func (k *consumer) Shut(ctx context.Context) error {
	defer k.conn.Guard(ctx)()
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
	var tags []string
	if k.on {
		tags = k.tags()
	}
	remove := k.o.Tubes[0].Kind == bus.Mailbox && len(k.later) == 0
	close(k.closing)
	k.mu.Unlock()
	k.conn.Remove(k)
	if k.conn.Failed() != nil {
		return nil
	}
	err := k.conn.Call(ctx, "closing a consumer", func() error {
		if remove {
			if err := k.remove(tags); err != nil {
				return err
			}
		}
		return k.ch.Close()
	}, nil)
	if err != nil && !errors.Is(err, bus.ErrClosed) {
		// Whoever closes next need not wait as long again.
		return k.conn.Fail(err)
	}
	return nil
}

// remove removes the mailboxes that are empty. What was sent here and not
// acknowledged is nothing to the broker then, so it goes back before, the same way.
func (k *consumer) remove(tags []string) error {
	for _, tag := range tags {
		if err := k.ch.Cancel(tag, false); err != nil {
			return err
		}
	}
	k.collecting.Wait()
	k.mu.Lock()
	k.giveBack()
	err := k.nack(slices.Collect(maps.Keys(k.unacked)))
	k.mu.Unlock()
	for _, t := range k.o.Tubes {
		if err != nil {
			return err
		}
		_, err = k.ch.QueueDelete(t.Name, true, true, false)
		if e, ok := errors.AsType[*amqp.Error](err); ok && (e.Code == amqp.PreconditionFailed || e.Code == amqp.NotFound) {
			// It is not empty, somebody else reads it, or it has gone. The channel is
			// closed over that.
			k.ch, err = k.conn.amqp.Channel()
		}
	}
	return err
}
