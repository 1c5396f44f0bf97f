// Package mem is a broker in memory, for tests and for measuring what the rest
// costs. It keeps the contract of package bus, and breaks it on request: see
// Hooks, Cut, Freeze, Stop and Restart.
//
// It starts no goroutine and does no I/O, so it works inside a synctest bubble
// with the bubble's time.
package mem

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

// Options of a Broker. The zero value is usable.
type Options struct {
	MaxBody int // largest body in bytes; 0 = 1 MiB
	// NoTTL makes the broker keep messages for ever, as beanstalkd does, and
	// leave it to Expire to remove them.
	NoTTL bool
	// Volatile makes the broker say that it forgets everything when it is
	// restarted, as a beanstalkd without a binlog does.
	Volatile bool
}

// A Broker holds tubes. It is safe for concurrent use.
type Broker struct {
	o Options

	mu      sync.Mutex
	tubes   map[string]*tube
	lastID  uint64
	base    uint64 // first id of this incarnation
	starts  int
	stopped bool
	thawed  chan struct{} // closed when not frozen
	conns   map[*conn]struct{}
	hooks   Hooks
	puts    int // since the last sweep
	dialled int
}

// New returns an empty, running broker.
func New(o Options) *Broker {
	if o.MaxBody == 0 {
		o.MaxBody = 1 << 20
	}
	thawed := make(chan struct{})
	close(thawed)
	return &Broker{o: o, tubes: map[string]*tube{}, base: 1, starts: 1, thawed: thawed, conns: map[*conn]struct{}{}}
}

// Driver reaches the broker.
func (b *Broker) Driver() bus.Driver { return driver{b} }

type driver struct{ b *Broker }

func (d driver) Addr() string { return "memory" }

func (d driver) Caps() bus.Caps {
	return bus.Caps{Name: "mem", TTL: !d.b.o.NoTTL, Durable: true, Order: true, MaxBody: d.b.o.MaxBody}
}

func (d driver) Dial(ctx context.Context) (bus.Conn, error) {
	b := d.b
	if hook := b.hook().OnDial; hook != nil {
		if err := hook(); err != nil {
			return nil, err
		}
	}
	if err := b.awake(ctx, nil); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return nil, errors.New("connection refused")
	}
	b.dialled++
	c := &conn{b: b, n: b.dialled, dead: make(chan struct{}), consumers: map[*consumer]struct{}{}}
	b.conns[c] = struct{}{}
	return c, nil
}

// awake waits while the broker is frozen, until ctx ends or dead is closed.
func (b *Broker) awake(ctx context.Context, dead <-chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	thawed := b.thawed
	b.mu.Unlock()
	select {
	case <-thawed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-dead:
		return errCut
	}
}

func (b *Broker) hook() Hooks {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hooks
}

// sweep drops what has outlived its TTL in tubes that nobody looks at, at a
// cost per Put that does not depend on their number.
func (b *Broker) sweep(now time.Time, puts int) {
	if b.puts += puts; b.puts < 1024+len(b.tubes)/2 {
		return
	}
	b.puts = 0
	for name, t := range b.tubes {
		t.expire(now)
		b.forget(name, t)
	}
}

func (b *Broker) tube(name string) *tube {
	t := b.tubes[name]
	if t == nil {
		t = &tube{}
		b.tubes[name] = t
	}
	return t
}

// forget removes a tube that holds nothing and that nobody watches.
func (b *Broker) forget(name string, t *tube) {
	if t.len() == 0 && len(t.delayed) == 0 && t.reserved == 0 && len(t.watchers) == 0 {
		delete(b.tubes, name)
	}
}

// Tubes is the number of tubes that exist.
func (b *Broker) Tubes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.tubes)
}
