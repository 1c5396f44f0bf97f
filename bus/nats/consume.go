package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

const (
	// idle is how long after a Receive a consumer goes on to take messages in,
	// for the next one. Then what it holds goes to others.
	idle = 500 * time.Millisecond

	// linger is how long the end of a batch is waited for.
	linger = 5 * time.Millisecond
)

// consumer reads its tubes by pull requests, one per tube at a time. The
// server answers one with all that there is, up to the number asked for, or as
// soon as there is something. What has come is in ready, so a ctx that ends
// loses no message.
type consumer struct {
	conn    *conn
	o       bus.ConsumeOptions
	wake    chan struct{} // holds a token when there is something to look at
	closing chan struct{}

	mu      sync.Mutex
	pulls   []*pull
	ready   []*delivery            // in order of arrival
	unacked map[*delivery]struct{} // handed out, not longer than AckWait ago
	err     error                  // what the server said of a request
	calls   bool                   // Receive runs
	busy    bool                   // it does, or did within the last idle
	timer   *time.Timer            // ends busy
	closed  bool
}

// delivery is the Ref of a bus.Delivery.
type delivery struct {
	consumer *consumer
	pull     *pull
	msg      *nats.Msg // without its body once that is handed out
	came     time.Time
	put      time.Time // by the server's clock
}

// Consume makes the streams and the server's consumers that are not there.
func (c *conn) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	defer c.Guard(ctx)()
	if err := c.Usable(); err != nil {
		return nil, err
	}
	places := make([]place, len(o.Tubes))
	for i, t := range o.Tubes {
		var err error
		if places[i], err = placeOf(t); err != nil {
			return nil, err
		}
	}
	k := &consumer{
		conn:    c,
		o:       o,
		wake:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		unacked: map[*delivery]struct{}{},
	}
	k.timer = time.AfterFunc(idle, k.rest)
	if err := k.openAll(ctx, places); err != nil {
		_ = k.Shut(ctx)
		return nil, err
	}
	if err := c.Add(k); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

// openAll opens all tubes at once: in a cluster each one takes a while.
func (k *consumer) openAll(ctx context.Context, places []place) error {
	pulls, errs := make([]*pull, len(places)), make([]error, len(places))
	var wg sync.WaitGroup
	for i, t := range k.o.Tubes {
		wg.Go(func() { pulls[i], errs[i] = k.open(ctx, t.Name, places[i]) })
	}
	wg.Wait()
	k.mu.Lock()
	k.pulls = slices.DeleteFunc(pulls, func(p *pull) bool { return p == nil })
	k.mu.Unlock()
	for i, err := range errs {
		if err != nil {
			return k.conn.call(ctx, "consuming "+k.o.Tubes[i].Name, err)
		}
	}
	return nil
}

// Receive returns what has come, or waits for it.
func (k *consumer) Receive(ctx context.Context, max int) ([]bus.Delivery, error) {
	defer k.conn.Guard(ctx)()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.begin()
	defer k.end()
	for late := false; ; {
		ds, again, err := k.next(ctx, max, late)
		if err != nil || len(ds) > 0 {
			return ds, err
		}
		if again == 0 {
			if err := k.restore(ctx); err != nil {
				return nil, k.conn.call(ctx, "consuming again", err)
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			continue
		}
		t := time.NewTimer(again)
		select {
		case <-k.wake:
			late = false
		case <-t.C:
			late = true
		case <-k.closing:
		case <-k.conn.Dead():
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
		t.Stop()
	}
}

func (k *consumer) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls, k.busy = true, true
	k.timer.Stop()
}

func (k *consumer) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = false
	if !k.closed {
		k.timer.Reset(idle)
	}
}

// next returns what is ready, or asks for more and says when to come back. It
// waits for the end of a batch, which follows its last message closely, unless
// that is late.
func (k *consumer) next(ctx context.Context, max int, late bool) ([]bus.Delivery, time.Duration, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.closed:
		return nil, 0, bus.ErrClosed
	case k.err != nil:
		return nil, 0, k.conn.Fail(k.err)
	}
	if err := k.conn.Failed(); err != nil {
		return nil, 0, err
	}
	if len(k.ready) > 0 && len(k.ready) < max && !late {
		for _, p := range k.pulls {
			if p.gathering() {
				return nil, linger, nil
			}
		}
	}
	ds, err := k.take(ctx, max)
	if err != nil || len(ds) > 0 {
		return ds, 0, err
	}
	again, err := k.ask(max)
	if err != nil {
		return nil, 0, k.conn.call(ctx, "asking for messages", err)
	}
	return nil, again, nil
}

// take hands out up to max of what is ready. k.mu is held.
func (k *consumer) take(ctx context.Context, max int) ([]bus.Delivery, error) {
	for d := range k.unacked {
		if time.Since(d.came) > AckWait {
			delete(k.unacked, d) // no longer ours to give back
		}
	}
	var ds []bus.Delivery
	for len(ds) < max && len(k.ready) > 0 {
		d := k.ready[0]
		k.ready[0] = nil
		k.ready = k.ready[1:]
		bd, err := d.decode()
		if err != nil {
			return nil, k.conn.Fail(err)
		}
		if k.expired(ctx, d) {
			if err := k.answer(d, "+ACK"); err != nil {
				return nil, k.conn.call(ctx, "dropping a message past its TTL", err)
			}
			continue
		}
		if k.o.MaxBody > 0 && bd.Size > k.o.MaxBody {
			bd.Body = nil
		}
		if d.pull.place.kind == bus.Queue {
			k.conn.keep(d.pull.place, d.pull.stream, bd.Size)
		}
		d.msg.Data = nil
		k.unacked[d] = struct{}{}
		ds = append(ds, bd)
	}
	return ds, nil
}

// rest is called when nobody has asked for a while.
func (k *consumer) rest() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.calls || k.closed || k.conn.Failed() != nil {
		return
	}
	k.busy = false
	k.giveBack()
	for _, p := range k.pulls {
		p.cancel()
	}
}

// giveBack returns what is ready to its tubes. k.mu is held. It needs no error:
// where the server does not hear it, it delivers again after AckWait.
func (k *consumer) giveBack() {
	for _, d := range k.ready {
		_ = k.answer(d, "-NAK")
	}
	k.ready = nil
}

// decode reads the message and what its ack subject says about it.
func (d *delivery) decode() (bus.Delivery, error) {
	meta, err := d.msg.Metadata()
	if err != nil {
		return bus.Delivery{}, fmt.Errorf("reading a message of %s: %w", d.pull.tube, err)
	}
	d.put = meta.Timestamp
	body := d.msg.Data
	if body == nil {
		body = []byte{}
	}
	return bus.Delivery{
		Tube: d.pull.tube,
		ID:   d.pull.stream.base + meta.Sequence.Stream,
		Body: body,
		Size: len(body),
		Ref:  d,
	}, nil
}

// expired reports whether d is past a TTL that the server could not see to.
// The clock of this machine may be wrong, so the server's has to agree.
func (k *consumer) expired(ctx context.Context, d *delivery) bool {
	ms, err := strconv.ParseInt(d.msg.Header.Get(ownTTLHeader), 10, 64)
	if err != nil {
		return false
	}
	ttl := time.Duration(ms) * time.Millisecond
	if time.Since(d.put) < ttl {
		return false
	}
	now, err := k.conn.serverTime(ctx)
	return err == nil && now.Sub(d.put) >= ttl
}

// Ack tells the server, and does not wait for its word.
func (k *consumer) Ack(ctx context.Context, ds ...bus.Delivery) error {
	return k.settle(ctx, "+ACK", ds)
}

// Release has the messages delivered again, to any consumer. Without a delay
// they keep their place where nobody else reads the tube.
func (k *consumer) Release(ctx context.Context, delay time.Duration, ds ...bus.Delivery) error {
	if delay <= 0 {
		if err := k.rewind(ctx, ds); err != nil {
			return err
		}
		return k.settle(ctx, "-NAK", ds)
	}
	return k.settle(ctx, fmt.Sprintf(`-NAK {"delay": %d}`, delay.Nanoseconds()), ds)
}

func (k *consumer) settle(ctx context.Context, word string, ds []bus.Delivery) error {
	defer k.conn.Guard(ctx)()
	if err := k.conn.Failed(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return bus.ErrClosed
	}
	var gone error
	for _, bd := range ds {
		d, ok := bd.Ref.(*delivery)
		if !ok || d.consumer != k {
			gone = bus.ErrGone
			continue
		}
		delete(k.unacked, d)
		if err := k.answer(d, word); err != nil {
			return k.conn.call(ctx, "acknowledging", err)
		}
	}
	return gone
}

// answer tells the server what becomes of d. k.mu is held.
func (k *consumer) answer(d *delivery, word string) error {
	d.pull.answered = d.msg.Reply
	return k.conn.nc.Publish(d.msg.Reply, []byte(word))
}

// Age asks the server for its time.
func (k *consumer) Age(ctx context.Context, bd bus.Delivery) (time.Duration, error) {
	defer k.conn.Guard(ctx)()
	d, ok := bd.Ref.(*delivery)
	if !ok || d.consumer != k {
		return 0, bus.ErrGone
	}
	now, err := k.conn.serverTime(ctx)
	if err != nil {
		return 0, k.conn.call(ctx, "asking for the time", err)
	}
	return now.Sub(d.put), nil
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
	k.busy = false
	k.timer.Stop()
	close(k.closing)
	if k.conn.Failed() == nil {
		back := slices.SortedFunc(maps.Keys(k.unacked), func(a, b *delivery) int { return a.came.Compare(b.came) })
		for _, d := range back { // before those that came after them
			if time.Since(d.came) < AckWait {
				_ = k.answer(d, "-NAK")
			}
		}
		k.giveBack()
	}
	k.unacked = nil
	pulls := k.pulls
	k.mu.Unlock()

	k.conn.Remove(k)
	var errs []error
	for _, p := range pulls {
		if k.conn.Failed() == nil {
			errs = append(errs, p.close(ctx))
		}
	}
	if err := errors.Join(errs...); err != nil {
		// Whoever closes next need not wait as long again.
		return k.conn.Fail(fmt.Errorf("closing a consumer: %w", err))
	}
	return nil
}
