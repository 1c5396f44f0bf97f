package bus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cbsd/cbsdmq"
)

// Options of a Bus. The zero value is usable.
type Options struct {
	Log         *slog.Logger  // nil: no log
	MaxWait     time.Duration // ceiling of the wait between two attempts to connect, which is never longer than 1.5 s where nobody answers; 0 = 5 s
	DialTimeout time.Duration // of one attempt; 0 = 5 s
	// KeepTrying takes a *Permanent for one more failed attempt, the next one
	// after MaxWait. A client wants to know at once that its password is wrong;
	// an agent wants to be there when somebody has corrected it.
	KeepTrying bool
}

// A Bus is a Driver that reconnects. Its methods wait for the broker until
// their ctx ends; they may be called concurrently.
//
// A Bus never sends a message twice by itself: when a connection breaks while
// a message is on its way, the Result says so and its sender decides.
//
// It logs one line when the broker gets out of reach, one when it then refuses
// us, and one when it is back, however many connections and attempts there are.
type Bus struct {
	driver Driver
	o      Options
	out    outage
	life   context.Context // ends with Close
	end    context.CancelCauseFunc

	dialing chan struct{} // held during the one attempt that is made at a time
	sharing chan struct{} // held while the shared connection is replaced

	mu        sync.Mutex
	shared    *conn // for Put, Expire and Inspect
	consumers map[*consumer]struct{}
}

// conn is a connection of a Bus.
type conn struct {
	Conn
	epoch int
	users int // calls on the shared connection, under Bus.mu
}

// New returns a bus over driver. It connects when it is first used.
func New(driver Driver, o Options) *Bus {
	if o.MaxWait <= 0 {
		o.MaxWait = 5 * time.Second
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Bus{
		driver:    driver,
		o:         o,
		dialing:   make(chan struct{}, 1),
		sharing:   make(chan struct{}, 1),
		consumers: map[*consumer]struct{}{},
	}
	b.out.log = o.Log.With("bus", driver.Caps().Name, "addr", driver.Addr())
	b.out.ceiling = o.MaxWait
	b.life, b.end = context.WithCancelCause(context.Background())
	return b
}

// Caps are the driver's.
func (b *Bus) Caps() Caps { return b.driver.Caps() }

// Addr names the broker in messages to people.
func (b *Bus) Addr() string { return b.driver.Addr() }

// Outages counts how often the broker was lost so far. While it stays the same
// every connection is to the same incarnation of the broker.
func (b *Bus) Outages() int { return b.out.epoch() }

// Away is why the broker is out of reach now, nil where it is not as far as is
// known: nothing is sent to find it out.
func (b *Bus) Away() error { return b.out.away() }

// Put hands messages over, in order; result i belongs to message i. An error
// with the code unreachable says that nothing was sent before ctx ended. For
// any other error see Result.
func (b *Bus) Put(ctx context.Context, ms ...Message) []Result {
	return b.put(ctx, func(int) bool { return true }, ms)
}

// PutDuring is Put for messages that may reach no other incarnation of the
// broker than the one that was there when Outages was outages. Where it may be
// another by now nothing is sent, and the error is ErrOutage.
func (b *Bus) PutDuring(ctx context.Context, outages int, ms ...Message) []Result {
	return b.put(ctx, func(epoch int) bool { return epoch == outages }, ms)
}

func (b *Bus) put(ctx context.Context, over func(epoch int) bool, ms []Message) []Result {
	if len(ms) == 0 {
		return nil
	}
	var rs []Result
	err := b.use(ctx, func(c *conn) (err error) {
		if !over(c.epoch) {
			return ErrOutage
		}
		rs = c.Put(ctx, ms...)
		for _, r := range rs {
			if err == nil || !alive(ctx, r.Err) {
				err = r.Err
			}
		}
		return err
	})
	if rs == nil {
		rs = make([]Result, len(ms))
		for i := range rs {
			rs[i].Err = err
		}
	}
	return rs
}

// Expire removes message id of the tube if it is there unread and older than
// age. Where Caps.TTL is set it does nothing.
func (b *Bus) Expire(ctx context.Context, tube string, id uint64, age time.Duration) error {
	return b.use(ctx, func(c *conn) error { return c.Expire(ctx, tube, id, age) })
}

// Sweep removes messages older than age from the tubes that match and that
// nobody consumes. Where Caps.TTL is set it does nothing.
func (b *Bus) Sweep(ctx context.Context, match func(tube string) bool, age time.Duration) (removed int, err error) {
	err = b.use(ctx, func(c *conn) (err error) {
		removed, err = c.Sweep(ctx, match, age)
		return err
	})
	return removed, err
}

// Inspect says what the broker and the tube are like.
func (b *Bus) Inspect(ctx context.Context, t Tube) (Info, error) {
	var info Info
	err := b.use(ctx, func(c *conn) (err error) {
		info, err = c.Inspect(ctx, t)
		return err
	})
	return info, err
}

// Close ends all connections and consumers; calls that wait return ErrClosed.
func (b *Bus) Close() error {
	b.end(ErrClosed)
	b.mu.Lock()
	shared, consumers := b.shared, b.consumers
	b.shared, b.consumers = nil, nil
	b.mu.Unlock()
	// At once: with a broker that does not answer, each may take a while.
	var g errgroup.Group
	if shared != nil {
		g.Go(shared.Close)
	}
	for c := range consumers {
		g.Go(c.Close)
	}
	return g.Wait()
}

// use calls f with the shared connection and drops it if f says that it broke.
func (b *Bus) use(ctx context.Context, f func(*conn) error) error {
	c, err := b.acquire(ctx)
	if err != nil {
		return err
	}
	err = f(c)
	dead := !alive(ctx, err)
	switch {
	case dead && b.life.Err() != nil:
		err = ErrClosed
	case dead:
		b.out.failed(c.epoch, err, permanent(err))
	case err == nil:
		b.out.worked(c.epoch)
	}
	b.release(c, dead)
	return err
}

// acquire returns the shared connection, made anew if there is none or if the
// broker was out of reach since it was dialled: it would only break in use,
// and leave its user in doubt about a message.
func (b *Bus) acquire(ctx context.Context) (*conn, error) {
	if c := b.take(); c != nil {
		return c, nil
	}
	select {
	case b.sharing <- struct{}{}:
		defer func() { <-b.sharing }()
	case <-ctx.Done():
		return nil, b.unreachable(ctx)
	case <-b.life.Done():
		return nil, ErrClosed
	}
	if c := b.take(); c != nil {
		return c, nil
	}
	c, err := b.dial(ctx, b.life)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	old := b.shared
	c.users = 1
	b.shared = c
	if b.life.Err() != nil {
		b.shared = nil
	}
	idle := old != nil && old.users == 0
	b.mu.Unlock()
	if idle {
		old.Close()
	}
	if b.life.Err() != nil {
		c.Close()
		return nil, ErrClosed
	}
	return c, nil
}

func (b *Bus) take() *conn {
	epoch := b.out.epoch()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shared == nil || b.shared.epoch != epoch {
		return nil
	}
	b.shared.users++
	return b.shared
}

func (b *Bus) release(c *conn, dead bool) {
	b.mu.Lock()
	if dead && b.shared == c {
		b.shared = nil
	}
	c.users--
	last := b.shared != c && c.users == 0
	b.mu.Unlock()
	if last || dead {
		c.Close()
	}
}

// dial connects, trying again until ctx or life ends.
func (b *Bus) dial(ctx, life context.Context) (*conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(life, func() { cancel(ErrClosed) })()
	for {
		c, err := b.try(ctx)
		switch {
		case err == nil:
			return c, nil
		case errors.Is(context.Cause(ctx), ErrClosed):
			return nil, ErrClosed
		case ctx.Err() != nil:
			return nil, b.unreachable(ctx)
		}
		if permanent(err) && !b.o.KeepTrying {
			return nil, err
		}
	}
}

// try makes one attempt when it is time for one, and one at a time for all
// connections of the bus.
func (b *Bus) try(ctx context.Context) (*conn, error) {
	select {
	case b.dialing <- struct{}{}:
		defer func() { <-b.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if d := b.out.wait(); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	epoch := b.out.epoch()
	dctx, cancel := context.WithTimeout(ctx, b.o.DialTimeout)
	defer cancel()
	c, err := b.driver.Dial(dctx)
	if err == nil {
		return &conn{Conn: c, epoch: epoch}, nil
	}
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		<-ctx.Done() // a dialer looks at the clock, and may be a little earlier
	}
	if ctx.Err() == nil && (!permanent(err) || b.o.KeepTrying) {
		b.out.failed(epoch, err, permanent(err))
	}
	return nil, err
}

// unreachable is the error of a call that ended without a connection.
func (b *Bus) unreachable(ctx context.Context) error {
	name, addr := b.driver.Caps().Name, b.driver.Addr()
	e := cbsdmq.Errorf(cbsdmq.CodeUnreachable, "", "%s at %s does not answer: %w", name, addr, ctx.Err())
	if cause := b.out.cause(); cause != nil {
		e = cbsdmq.Errorf(cbsdmq.CodeUnreachable, "", "%s at %s is out of reach: %w (%w)", name, addr, cause, ctx.Err())
	}
	if b.driver.Caps().Brokerless {
		return e.WithHint("the agent itself listens there: start it with `cbsdmq agent`; the key \"uri\" says where to look")
	}
	return e.WithHint("is the broker running there? the key \"uri\" says where to look; `cbsdmq check` looks at it")
}

// alive reports whether a connection whose call returned err can go on.
func alive(ctx context.Context, err error) bool {
	return err == nil ||
		errors.Is(err, ErrTooLarge) || errors.Is(err, ErrGone) || errors.Is(err, ErrBadTube) || errors.Is(err, ErrOutage) ||
		ctx.Err() != nil && errors.Is(err, ctx.Err())
}

func permanent(err error) bool {
	_, ok := errors.AsType[*Permanent](err)
	return ok
}
