package bus

import (
	"context"
	"sync"
	"time"
)

// consumer is a Consumer with a connection of its own, which Receive dials
// again when it broke.
type consumer struct {
	bus  *Bus
	o    ConsumeOptions
	life context.Context // ends with Close
	end  context.CancelCauseFunc

	mu   sync.Mutex // Close may come from another goroutine
	conn *conn      // nil when there is none
	in   Consumer   // over conn

	inner []Delivery // scratch of own
}

// ref is the Ref of a Delivery: the connection that it belongs to, and the
// driver's Ref.
type ref struct {
	conn *conn
	ref  any
}

// Consume returns a Consumer of o once the broker has agreed. Afterwards it
// reconnects within Receive, for as long as the ctx of Receive allows; what
// was delivered before is then ErrGone, and comes again.
func (b *Bus) Consume(ctx context.Context, o ConsumeOptions) (Consumer, error) {
	c := &consumer{bus: b, o: o}
	c.life, c.end = context.WithCancelCause(b.life)
	b.mu.Lock()
	if b.consumers == nil {
		b.mu.Unlock()
		c.end(ErrClosed)
		return nil, ErrClosed
	}
	b.consumers[c] = struct{}{}
	b.mu.Unlock()
	if _, _, err := c.connect(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *consumer) Receive(ctx context.Context, max int) ([]Delivery, error) {
	for {
		conn, in, err := c.connect(ctx)
		if err != nil {
			return nil, err
		}
		ds, err := in.Receive(ctx, max)
		if err == nil {
			c.bus.out.worked(conn.epoch)
			refs := make([]ref, len(ds))
			for i := range ds {
				refs[i] = ref{conn, ds[i].Ref}
				ds[i].Ref = &refs[i]
			}
			return ds, nil
		}
		if err = c.after(ctx, conn, err); alive(ctx, err) || c.life.Err() != nil {
			return nil, err
		}
		if permanent(err) && !c.bus.o.KeepTrying {
			return nil, err
		}
	}
}

func (c *consumer) Ack(ctx context.Context, ds ...Delivery) error {
	return c.own(ctx, ds, func(in Consumer, ds []Delivery) error { return in.Ack(ctx, ds...) })
}

func (c *consumer) Release(ctx context.Context, delay time.Duration, ds ...Delivery) error {
	return c.own(ctx, ds, func(in Consumer, ds []Delivery) error { return in.Release(ctx, delay, ds...) })
}

func (c *consumer) Age(ctx context.Context, d Delivery) (age time.Duration, err error) {
	err = c.own(ctx, []Delivery{d}, func(in Consumer, ds []Delivery) (err error) {
		age, err = in.Age(ctx, ds[0])
		return err
	})
	return age, err
}

func (c *consumer) Close() error {
	c.end(ErrClosed)
	c.bus.mu.Lock()
	delete(c.bus.consumers, c)
	c.bus.mu.Unlock()
	c.mu.Lock()
	conn := c.conn
	c.conn, c.in = nil, nil
	c.mu.Unlock()
	if conn == nil {
		return nil
	}
	return conn.Close()
}

// own calls f with those of ds that belong to the present connection. It
// returns ErrGone if there are others.
func (c *consumer) own(ctx context.Context, ds []Delivery, f func(Consumer, []Delivery) error) error {
	if c.life.Err() != nil {
		return ErrClosed
	}
	c.mu.Lock()
	conn, in := c.conn, c.in
	c.mu.Unlock()
	c.inner = c.inner[:0]
	for _, d := range ds {
		if r, ok := d.Ref.(*ref); ok && conn != nil && r.conn == conn {
			d.Ref = r.ref
			c.inner = append(c.inner, d)
		}
	}
	defer clear(c.inner)
	if len(c.inner) > 0 {
		if err := f(in, c.inner); err != nil {
			return c.after(ctx, conn, err)
		}
	}
	if len(c.inner) < len(ds) {
		return ErrGone
	}
	return nil
}

// connect returns the present connection, or makes one.
func (c *consumer) connect(ctx context.Context) (*conn, Consumer, error) {
	for {
		if c.life.Err() != nil {
			return nil, nil, ErrClosed
		}
		c.mu.Lock()
		conn, in := c.conn, c.in
		c.mu.Unlock()
		if conn != nil {
			return conn, in, nil
		}
		conn, err := c.bus.dial(ctx, c.life)
		if err != nil {
			return nil, nil, err
		}
		in, err = conn.Consume(ctx, c.o)
		if err == nil {
			c.bus.out.worked(conn.epoch)
			c.mu.Lock()
			if c.life.Err() == nil {
				c.conn, c.in = conn, in
			}
			c.mu.Unlock()
			if c.life.Err() != nil {
				conn.Close()
			}
			continue
		}
		conn.Close()
		switch {
		case c.life.Err() != nil:
			return nil, nil, ErrClosed
		case ctx.Err() != nil:
			return nil, nil, c.bus.unreachable(ctx)
		case alive(ctx, err), permanent(err) && !c.bus.o.KeepTrying:
			return nil, nil, err
		}
		c.bus.out.failed(conn.epoch, err, permanent(err))
	}
}

// after drops the connection if err says that it broke, and returns what the
// caller is to be told.
func (c *consumer) after(ctx context.Context, conn *conn, err error) error {
	if c.life.Err() != nil {
		return ErrClosed
	}
	if alive(ctx, err) {
		return err
	}
	c.mu.Lock()
	if c.conn == conn {
		c.conn, c.in = nil, nil
	}
	c.mu.Unlock()
	conn.Close()
	c.bus.out.failed(conn.epoch, err, permanent(err))
	return err
}
