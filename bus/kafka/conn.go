package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cbsd/cbsdmq/bus"
)

// closeTimeout bounds Close where the broker does not answer.
const closeTimeout = 1500 * time.Millisecond

// conn is a connection that does not come back: whatever breaks it sets err
// once and closes dead.
type conn struct {
	driver *Driver
	addr   string
	main   *link
	dead   chan struct{}

	puts sync.Mutex // one Put hands over at a time, so that messages keep their order

	mu        sync.Mutex
	err       error // why dead
	closing   bool
	links     map[*link]struct{}
	known     map[string]bool // topics that were there
	consumers map[*consumer]struct{}
}

func newConn(d *Driver, addr string) *conn {
	return &conn{
		driver: d, addr: addr, dead: make(chan struct{}),
		links: map[*link]struct{}{}, known: map[string]bool{}, consumers: map[*consumer]struct{}{},
	}
}

// adopt has l end with the conn.
func (c *conn) adopt(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go l.close()
		return
	}
	c.links[l] = struct{}{}
}

// abandon ends a link that is not needed any more.
func (c *conn) abandon(l *link) {
	c.mu.Lock()
	delete(c.links, l)
	c.mu.Unlock()
	l.close()
}

// fail ends the connection for err, unless it has ended already, and returns why
// it has.
func (c *conn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.dead)
		for l := range c.links {
			go l.close()
		}
		clear(c.links)
	}
	return c.err
}

func (c *conn) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// usable returns why nothing new can be begun, or nil.
func (c *conn) usable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil && c.closing {
		return bus.ErrClosed
	}
	return c.err
}

// reason is the error of a request that returned err.
func (c *conn) reason(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if dead := c.failed(); dead != nil {
		return dead
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// patiently calls f again while the broker says that it cannot answer yet, as it
// does when it has just started.
func (c *conn) patiently(ctx context.Context, f func() error) error {
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		err := f()
		if err == nil || !kerr.IsRetriable(err) {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		case <-c.dead:
			t.Stop()
			return err
		}
	}
}

// Put hands ms over and collects the broker's confirmations: of a message, that
// all copies that are in sync have it.
func (c *conn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	results := make([]bus.Result, len(ms))
	for i, m := range ms {
		switch {
		case len(m.Body) > maxBody:
			results[i].Err = fmt.Errorf("%w: %d bytes, at most %d", bus.ErrTooLarge, len(m.Body), maxBody)
		case ctx.Err() != nil:
			results[i].Err = ctx.Err()
		default:
			results[i].Err = c.prepare(ctx, m.Tube)
		}
	}
	confirms := make([]chan error, len(ms))
	c.puts.Lock()
	for i, m := range ms {
		if results[i].Err == nil {
			results[i].ID = newID()
			confirms[i] = c.produce(ctx, record(m, results[i].ID))
		}
	}
	c.puts.Unlock()
	for i, confirm := range confirms {
		if confirm == nil {
			continue
		}
		if results[i].Err = c.confirmed(ctx, ms[i].Tube.Name, confirm); results[i].Err != nil {
			results[i].ID = 0
		}
	}
	return results
}

// produce hands r to the library, which tells the channel what became of it.
func (c *conn) produce(ctx context.Context, r *kgo.Record) chan error {
	confirm := make(chan error, 1)
	c.main.Produce(ctx, r, func(_ *kgo.Record, err error) { confirm <- err })
	return confirm
}

func (c *conn) confirmed(ctx context.Context, tube string, confirm chan error) error {
	var err error
	select {
	case err = <-confirm:
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.dead:
		err = c.failed()
	}
	if errors.Is(err, kerr.MessageTooLarge) {
		return fmt.Errorf("%w: %w", bus.ErrTooLarge, err)
	}
	return c.reason(ctx, "putting to "+tube, err)
}

// Expire does nothing: readers know TTLs.
func (c *conn) Expire(context.Context, string, uint64, time.Duration) error { return nil }

// Sweep does nothing: readers know TTLs.
func (c *conn) Sweep(context.Context, func(string) bool, time.Duration) (int, error) { return 0, nil }

// Close gives back what the consumers hold, and ends the connection.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closing = true
	consumers := make([]*consumer, 0, len(c.consumers))
	for k := range c.consumers {
		consumers = append(consumers, k)
	}
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, k := range consumers {
		wg.Go(func() { k.close(ctx) })
	}
	wg.Wait()
	if c.failed() == nil {
		_ = c.main.Flush(ctx) // acknowledgements of replies
	}
	_ = c.fail(bus.ErrClosed)
	return nil
}
