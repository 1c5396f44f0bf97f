package mem

import (
	"context"
	"errors"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

type consumer struct {
	conn   *conn
	o      bus.ConsumeOptions
	wake   chan struct{}
	closed chan struct{}

	// Under Broker.mu.
	held map[uint64]*msg
	late *bus.Delivery // overtaken by the next one, see Hooks
	turn int           // the tube to look into first, so that none starves
}

func (n *consumer) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *consumer) alive(ctx context.Context) error {
	select {
	case <-n.closed:
		return bus.ErrClosed
	default:
		return n.conn.alive(ctx)
	}
}

func (n *consumer) Receive(ctx context.Context, max int) ([]bus.Delivery, error) {
	for {
		if err := n.alive(ctx); err != nil {
			return nil, err
		}
		ds, due := n.reserve(max)
		if ds = n.fault(ds); len(ds) > 0 {
			return ds, nil
		}
		if err := n.pause(ctx, due); err != nil {
			return nil, err
		}
	}
}

// pause waits until there may be something to receive.
func (n *consumer) pause(ctx context.Context, due time.Time) error {
	var timer <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-n.wake:
	case <-timer:
	case <-ctx.Done():
	case <-n.closed:
	case <-n.conn.dead:
	}
	return ctx.Err()
}

// reserve takes at most max messages that are ready. due is when the next
// delayed one will be, if there is none.
func (n *consumer) reserve(max int) (ds []bus.Delivery, due time.Time) {
	now := time.Now()
	b := n.conn.b
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-n.conn.dead: // cut since
		return nil, due
	case <-n.closed:
		return nil, due
	default:
	}
	for i := range n.o.Tubes {
		t := b.tube(n.o.Tubes[(n.turn+i)%len(n.o.Tubes)].Name)
		for len(ds) < max {
			m := t.pop(now)
			if m == nil {
				break
			}
			n.held[m.id] = m
			t.reserved++
			ds = append(ds, m.delivery(n, n.o.MaxBody))
		}
		if t.len() > 0 {
			n.poke()
		}
		if len(t.delayed) > 0 && (due.IsZero() || t.delayed[0].due.Before(due)) {
			due = t.delayed[0].due
		}
	}
	n.turn++
	return ds, due
}

func (n *consumer) Ack(ctx context.Context, ds ...bus.Delivery) error {
	if err := n.alive(ctx); err != nil {
		return err
	}
	b := n.conn.b
	if hook := b.hook().OnAck; hook != nil {
		for _, d := range ds {
			applied, err := hook(d)
			if applied {
				if err := n.settle(func(*tube, *msg) {}, d); err != nil {
					return err
				}
			}
			if err != nil {
				n.conn.cut(err)
				return err
			}
		}
		return nil
	}
	// As on a real broker, a message that is no longer ours is not an error.
	err := n.settle(func(*tube, *msg) {}, ds...)
	if errors.Is(err, errNotHeld) {
		return nil
	}
	return err
}

func (n *consumer) Release(ctx context.Context, delay time.Duration, ds ...bus.Delivery) error {
	if err := n.alive(ctx); err != nil {
		return err
	}
	due := time.Now().Add(delay)
	err := n.settle(func(t *tube, m *msg) {
		if delay > 0 {
			m.due = due
			t.delay(m)
		} else {
			t.push(m)
		}
		t.notify()
	}, ds...)
	if errors.Is(err, errNotHeld) {
		return bus.ErrGone
	}
	return err
}

var errNotHeld = errors.New("not held")

// settle ends the reservation of ds and does f with each.
func (n *consumer) settle(f func(*tube, *msg), ds ...bus.Delivery) error {
	b := n.conn.b
	b.mu.Lock()
	defer b.mu.Unlock()
	var err error
	for _, d := range ds {
		m := n.held[d.ID]
		switch {
		case d.Ref != n:
			err = bus.ErrGone
		case m == nil:
			err = errors.Join(err, errNotHeld)
		default:
			delete(n.held, d.ID)
			t := b.tube(m.tube)
			t.reserved--
			f(t, m)
			b.forget(m.tube, t)
		}
	}
	return err
}

func (n *consumer) Age(ctx context.Context, d bus.Delivery) (time.Duration, error) {
	if err := n.alive(ctx); err != nil {
		return 0, err
	}
	n.conn.b.mu.Lock()
	defer n.conn.b.mu.Unlock()
	m := n.held[d.ID]
	if m == nil || d.Ref != n {
		return 0, bus.ErrGone
	}
	return time.Since(m.put), nil
}

func (n *consumer) Close() error {
	n.conn.b.mu.Lock()
	defer n.conn.b.mu.Unlock()
	select {
	case <-n.closed:
		return nil
	default:
	}
	close(n.closed)
	if _, ok := n.conn.consumers[n]; ok {
		n.leave()
	}
	return nil
}
