package mem

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

var errCut = errors.New("connection reset by peer")

type conn struct {
	b    *Broker
	n    int // which one
	once sync.Once
	dead chan struct{} // closed by cut and Close
	why  error         // set before dead is closed

	consumers map[*consumer]struct{} // under Broker.mu
}

// alive waits while the broker is frozen and fails if the connection is dead.
func (c *conn) alive(ctx context.Context) error {
	select {
	case <-c.dead:
		return c.why
	default:
	}
	err := c.b.awake(ctx, c.dead)
	if errors.Is(err, errCut) {
		return c.why
	}
	return err
}

func (c *conn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	rs := make([]bus.Result, len(ms))
	if err := c.alive(ctx); err != nil {
		for i := range rs {
			rs[i].Err = err
		}
		return rs
	}
	b := c.b
	if hook := b.hook().OnPut; hook != nil {
		for i, m := range ms {
			if i > 0 && rs[i-1].Err != nil && !errors.Is(rs[i-1].Err, bus.ErrTooLarge) {
				rs[i].Err = rs[i-1].Err
				continue
			}
			stored, err := hook(m)
			if stored {
				b.mu.Lock()
				rs[i] = b.put(m, time.Now())
				b.mu.Unlock()
			}
			if err != nil {
				rs[i] = bus.Result{Err: err}
				if !errors.Is(err, bus.ErrTooLarge) {
					c.cut(err)
				}
			}
		}
		return rs
	}
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range ms {
		rs[i] = b.put(m, now)
	}
	b.sweep(now, len(ms))
	return rs
}

// put stores m. The caller holds b.mu.
func (b *Broker) put(m bus.Message, now time.Time) bus.Result {
	if !bus.ValidTube(m.Tube.Name) {
		return bus.Result{Err: fmt.Errorf("%q: %w", m.Tube.Name, bus.ErrBadTube)}
	}
	if len(m.Body) > b.o.MaxBody {
		return bus.Result{Err: fmt.Errorf("%d bytes: %w", len(m.Body), bus.ErrTooLarge)}
	}
	b.lastID++
	s := &msg{tube: m.Tube.Name, id: b.lastID, body: append([]byte{}, m.Body...), put: now}
	if m.TTL > 0 && !b.o.NoTTL {
		s.expires = now.Add(m.TTL)
	}
	t := b.tube(m.Tube.Name)
	t.push(s)
	t.notify()
	return bus.Result{ID: s.id}
}

func (c *conn) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	if err := c.alive(ctx); err != nil {
		return nil, err
	}
	for _, t := range o.Tubes {
		if !bus.ValidTube(t.Name) {
			return nil, fmt.Errorf("%q: %w", t.Name, bus.ErrBadTube)
		}
	}
	n := &consumer{conn: c, o: o, wake: make(chan struct{}, 1), closed: make(chan struct{}), held: map[uint64]*msg{}}
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range o.Tubes {
		t := b.tube(t.Name)
		t.watchers = append(t.watchers, n)
	}
	c.consumers[n] = struct{}{}
	return n, nil
}

func (c *conn) Expire(ctx context.Context, tube string, id uint64, age time.Duration) error {
	if err := c.alive(ctx); err != nil || !c.b.o.NoTTL {
		return err
	}
	now := time.Now()
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if t := c.b.tubes[tube]; t != nil {
		t.wake(now)
		t.remove(id, func(m *msg) bool { return now.Sub(m.put) > age })
		c.b.forget(tube, t)
	}
	return nil
}

func (c *conn) Sweep(ctx context.Context, match func(tube string) bool, age time.Duration) (removed int, err error) {
	if err := c.alive(ctx); err != nil {
		return 0, err
	}
	now := time.Now()
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	for name, t := range c.b.tubes {
		if !match(name) || len(t.watchers) > 0 {
			continue
		}
		t.wake(now)
		for _, m := range slices.Clone(t.ready[t.head:]) {
			t.remove(m.id, func(m *msg) bool {
				old := now.Sub(m.put) > age
				if old {
					removed++
				}
				return old
			})
		}
		c.b.forget(name, t)
	}
	return removed, nil
}

func (c *conn) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	if err := c.alive(ctx); err != nil {
		return bus.Info{}, err
	}
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	info := bus.Info{Server: "memory", Durable: !b.o.Volatile, MaxBody: b.o.MaxBody, IDBase: b.base, Instance: fmt.Sprint(b.starts)}
	if t := b.tubes[t.Name]; t != nil {
		now := time.Now()
		t.wake(now)
		t.expire(now)
		info.Ready, info.Consumers = t.len(), len(t.watchers)
	}
	return info, nil
}

func (c *conn) Close() error {
	c.cut(bus.ErrClosed)
	return nil
}

// cut ends the connection: what its consumers held is ready again.
func (c *conn) cut(why error) {
	c.once.Do(func() {
		c.b.mu.Lock()
		defer c.b.mu.Unlock()
		c.why = why
		close(c.dead)
		delete(c.b.conns, c)
		for n := range c.consumers {
			n.leave()
		}
	})
}

// leave gives back what n holds. The caller holds Broker.mu.
func (n *consumer) leave() {
	b := n.conn.b
	delete(n.conn.consumers, n)
	for id, m := range n.held {
		t := b.tube(m.tube)
		t.reserved--
		t.push(m)
		t.notify()
		delete(n.held, id)
	}
	for _, w := range n.o.Tubes {
		if t := b.tubes[w.Name]; t != nil {
			t.watchers = slices.DeleteFunc(t.watchers, func(c *consumer) bool { return c == n })
			b.forget(w.Name, t)
		}
	}
}
