package rabbitmq

import (
	"context"
	"errors"
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
	}
	if err := k.ch.Qos(k.window, 0, false); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.subscribe(true); err != nil {
		return err
	}
	if last := k.o.Tubes[len(k.o.Tubes)-1]; last.Kind == bus.Mailbox {
		k.conn.made(last.Name)
	}
	return nil
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
