package activemq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

const (
	// idle is how long after a Receive a consumer goes on to take messages in,
	// for the next one. Then what it holds goes to others.
	idle = 100 * time.Millisecond

	// hold is how long it keeps what was given back, for its own next Receive:
	// what goes to the broker in the meantime could overtake it there.
	hold = 2 * time.Second

	// maxCredit bounds what one link may be sent ahead.
	maxCredit = 512

	// firstCredit is what a new link takes whose reader is alone. Classic puts what
	// comes back behind all else that has come back before: to keep the order, it
	// must have been taken together. It is more than an agent holds at a time.
	firstCredit = 100
)

// consumer takes messages over links: one for each tube, opened together. After
// firstCredit a link is never given more credit than the present Receive has room
// for, so that nothing lies with one consumer while another has nothing to do.
//
// Credit cannot be taken back reliably, nor a single message given back:
// ActiveMQ Classic delivers what is released to the same link again. So what
// goes back goes with the links: they get no more credit and are closed once all
// else that came over them is acknowledged. The next Receive opens others.
// Whoever receives again soon gets what was given back without that.
type consumer struct {
	conn    *conn
	o       bus.ConsumeOptions
	wake    chan struct{} // holds a token when there is something to look at
	closing chan struct{}

	mu       sync.Mutex
	now      *links              // those that receive; nil = to be opened
	all      map[*links]struct{} // that are open
	opening  bool
	shutting chan struct{} // closed when those that were given up last are closed; nil = none were
	ready    []*ref        // came over now, and are to be handed out
	came     int           // messages so far
	calls    bool          // Receive runs
	resting  bool          // nobody has called it for a while: links go when nothing is held that came over them
	timer    *time.Timer
	later    map[*time.Timer]struct{}
	closed   bool
}

// ref is the Ref of a bus.Delivery.
type ref struct {
	consumer *consumer
	link     *link
	msg      *amqp.Message
	n        int  // its place
	back     bool // was given back
	settled  bool // or to be released after a delay
}

// Consume attaches to the queues at once: they exist then, and we may use them.
func (c *conn) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	defer c.Guard(ctx)()
	if err := c.Usable(); err != nil {
		return nil, err
	}
	for _, t := range o.Tubes {
		if !valid(t.Name) {
			return nil, fmt.Errorf("%w: %q", bus.ErrBadTube, t.Name)
		}
	}
	k := &consumer{
		conn: c, o: o, wake: make(chan struct{}, 1), closing: make(chan struct{}),
		all: map[*links]struct{}{}, later: map[*time.Timer]struct{}{},
	}
	k.timer = time.AfterFunc(idle, k.rest)
	var l *links
	err := c.Call(ctx, "consuming", func() (err error) {
		l, err = k.open()
		return err
	}, func() { _ = l.close() })
	switch {
	case unauthorized(err):
		return nil, &bus.Permanent{Err: fmt.Errorf("%s may not: %w", c.login, err)}
	case err != nil:
		return nil, err
	}
	k.use(l)
	if err := c.Add(k); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (k *consumer) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Receive returns what has come, or waits for it.
func (k *consumer) Receive(ctx context.Context, max int) ([]bus.Delivery, error) {
	defer k.conn.Guard(ctx)()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.calls, k.resting = true, false
	k.timer.Stop()
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.calls = false
		if !k.closed {
			k.timer.Reset(k.patience())
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

// next hands out up to max of what is ready, and sees to it that more comes.
func (k *consumer) next(max int) ([]bus.Delivery, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, bus.ErrClosed
	}
	if err := k.conn.Failed(); err != nil {
		return nil, err
	}
	if err := k.ask(max); err != nil {
		return nil, k.conn.Fail(fmt.Errorf("receiving: %w", err))
	}
	if n := min(max, len(k.ready)); n > 0 {
		return k.take(n), nil
	}
	return nil, nil
}

// ask has the broker send what there is still room for. k.mu is held.
func (k *consumer) ask(max int) error {
	if k.now == nil {
		if !k.opening {
			k.opening = true
			go k.reopen(k.shutting)
		}
		return nil
	}
	for _, l := range k.now.each {
		n := min(max, maxCredit) - len(k.ready) - l.credit
		if !l.asked && k.o.Alone {
			n = firstCredit
		}
		if n > 0 {
			l.asked = true
			l.credit += n
			if err := l.in.IssueCredit(uint32(n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// take hands out n of what is ready. k.mu is held.
func (k *consumer) take(n int) []bus.Delivery {
	ds := make([]bus.Delivery, n)
	for i, r := range k.ready[:n] {
		ds[i] = k.delivery(r)
		k.ready[i] = nil
	}
	k.now.held += n
	k.ready = k.ready[n:]
	return ds
}

// rest is called when nobody has asked for a while. What was sent ahead stays
// with the links as long as something is held that came over them: whoever
// receives again before that still gets it.
func (k *consumer) rest() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.calls || k.closed || k.now == nil || k.conn.Failed() != nil {
		return
	}
	k.resting = true
	if k.now.held > 0 {
		return
	}
	sent := len(k.ready)
	for _, l := range k.now.each {
		sent += l.credit
	}
	if sent > 0 {
		k.retire(k.now)
	}
}

// Ack tells the broker, and does not wait for its word.
func (k *consumer) Ack(ctx context.Context, ds ...bus.Delivery) error {
	defer k.conn.Guard(ctx)()
	refs, gone := k.settle(ds)
	if gone != nil && !errors.Is(gone, bus.ErrGone) {
		return gone
	}
	var failed error
	err := k.conn.Together(func() {
		for _, r := range refs {
			if failed == nil {
				failed = r.link.in.AcceptMessage(context.Background(), r.msg)
			}
		}
	})
	if err := errors.Join(failed, err); err != nil {
		return k.conn.Fail(fmt.Errorf("acknowledging: %w", err))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(refs, false)
	return gone
}

// patience is how long after a Receive what is ready waits for the next one. k.mu
// is held.
func (k *consumer) patience() time.Duration {
	if len(k.ready) > 0 && k.ready[0].back {
		return hold
	}
	return idle
}

// Release has the messages delivered again, without a delay first of all to whoever
// receives here within hold. Until a delay has passed they are kept here. All are
// given back at once if the connection ends.
func (k *consumer) Release(_ context.Context, delay time.Duration, ds ...bus.Delivery) error {
	refs, gone := k.settle(ds)
	if gone != nil && !errors.Is(gone, bus.ErrGone) {
		return gone
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if delay <= 0 {
		k.keep(refs)
		return gone
	}
	var t *time.Timer
	t = time.AfterFunc(delay, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.later, t)
		k.drop(refs, true)
	})
	k.later[t] = struct{}{}
	return gone
}

// keep makes refs ready again, before what came behind them. k.mu is held.
func (k *consumer) keep(refs []*ref) {
	for _, r := range refs {
		if r.link.links != k.now {
			k.drop([]*ref{r}, true)
			continue
		}
		k.now.held--
		again := &ref{consumer: k, link: r.link, msg: r.msg, n: r.n, back: true}
		i, _ := slices.BinarySearchFunc(k.ready, r.n, func(r *ref, n int) int { return r.n - n })
		k.ready = slices.Insert(k.ready, i, again)
	}
	if !k.calls {
		k.timer.Reset(k.patience())
	}
	k.signal()
}

// settle returns the refs of ds, which are the caller's to bring to an end now.
func (k *consumer) settle(ds []bus.Delivery) (refs []*ref, gone error) {
	if err := k.conn.Failed(); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, bus.ErrClosed
	}
	for _, d := range ds {
		r, ok := d.Ref.(*ref)
		if !ok || r.consumer != k || r.settled {
			gone = bus.ErrGone
			continue
		}
		r.settled = true
		refs = append(refs, r)
	}
	return refs, gone
}

// drop forgets refs, which are acknowledged or go back with their links. k.mu is
// held.
func (k *consumer) drop(refs []*ref, back bool) {
	for _, r := range refs {
		ls := r.link.links
		ls.held--
		if back || ls != k.now || k.resting && ls.held == 0 {
			k.retire(ls)
		}
	}
}

// Age is by the clocks of sender and receiver.
func (k *consumer) Age(_ context.Context, d bus.Delivery) (time.Duration, error) {
	r, ok := d.Ref.(*ref)
	if !ok || r.consumer != k {
		return 0, bus.ErrGone
	}
	if err := k.conn.Failed(); err != nil {
		return 0, err
	}
	return max(0, time.Since(putAt(r.msg))), nil
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
	close(k.closing)
	open := k.all
	k.all, k.now, k.ready = nil, nil, nil
	k.mu.Unlock()
	k.conn.Remove(k)
	if k.conn.Failed() != nil {
		return nil
	}
	err := k.conn.Call(ctx, "closing a consumer", func() error {
		for ls := range open {
			if err := ls.close(); err != nil {
				return err
			}
		}
		return nil
	}, nil)
	if err != nil && !errors.Is(err, bus.ErrClosed) {
		// Whoever closes next need not wait as long again.
		return k.conn.Fail(err)
	}
	return nil
}
