package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

// conn is a connection that does not come back, nor do its links.
type conn struct {
	*wire.Session
	driver    *Driver
	addr      string
	tls       *tls.Config // nil = none
	user      string      // for messages
	mechanism []sasl.Mechanism
	main      *link

	puts sync.Mutex // one Put hands over at a time, so that messages keep their order

	mu    sync.Mutex
	links map[*link]struct{}
	known map[string]bool // topics that were there
}

func newConn(d *Driver, addr string) *conn {
	c := &conn{
		Session: wire.NewSession(&wire.Conn{}), // the sockets are those of the links
		driver:  d, addr: addr, links: map[*link]struct{}{}, known: map[string]bool{},
	}
	go func() {
		<-c.Dead()
		c.mu.Lock()
		defer c.mu.Unlock()
		for l := range c.links {
			go l.close()
		}
		clear(c.links)
	}()
	return c
}

// adopt has l end with the conn.
func (c *conn) adopt(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Failed() != nil {
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

// reason is the error of a request that returned err.
func (c *conn) reason(ctx context.Context, doing string, err error) error {
	if err == nil {
		return nil
	}
	if dead := c.Failed(); dead != nil {
		return dead
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	err = fmt.Errorf("%s: %w", doing, err)
	if denied(err) {
		return &bus.Permanent{Err: fmt.Errorf("%s may not: %w", c.who(), err)}
	}
	return err
}

// denied reports whether err says that we lack a right.
func denied(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed)
}

// who we are, for messages.
func (c *conn) who() string {
	if c.user == "" {
		return "who has not logged in"
	}
	return fmt.Sprintf("user %q", c.user)
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
		case <-c.Dead():
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
		results[i].Err = c.confirmed(ctx, ms[i].Tube.Name, confirm, func() chan error {
			c.puts.Lock()
			defer c.puts.Unlock()
			return c.produce(ctx, record(ms[i], results[i].ID))
		})
		if results[i].Err != nil {
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

// confirmed waits for the broker's confirmation. The library fails all that waits
// for a partition when the context of the first of it ends; what was not the first
// is handed over again.
func (c *conn) confirmed(ctx context.Context, tube string, confirm chan error, again func() chan error) error {
	var err error
	for waiting := true; waiting; {
		select {
		case err = <-confirm:
		case <-ctx.Done():
			err = ctx.Err()
		case <-c.Dead():
			err = c.Failed()
		}
		ended := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
		if waiting = ended && ctx.Err() == nil && c.Failed() == nil; waiting {
			confirm = again()
		}
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
	c.Session.Close(func() {})
	return nil
}
