package activemq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

// closeTimeout bounds Close where the broker does not answer.
const closeTimeout = 1500 * time.Millisecond

// conn is a connection that does not come back: whatever breaks it sets err
// once and closes dead.
//
// The library takes the deadline of a ctx for that of a write, and a write that
// misses it breaks the connection. So it is given none: see call and guard.
type conn struct {
	amqp    *amqp.Conn
	wire    *wire.Conn
	login   string // for messages
	session *amqp.Session
	out     *amqp.Sender  // to any queue
	sending chan struct{} // held by the Put that sends, so that messages keep their order
	dead    chan struct{}

	mu        sync.Mutex
	err       error // why dead
	closing   bool
	consumers map[*consumer]struct{}
	plugin    plugin
}

func newConn(ctx context.Context, ac *amqp.Conn, w *wire.Conn, e endpoint) (*conn, error) {
	c := &conn{
		amqp: ac, wire: w, login: e.login(), dead: make(chan struct{}),
		sending: make(chan struct{}, 1), consumers: map[*consumer]struct{}{},
	}
	go func() {
		<-ac.Done()
		_ = c.fail(fmt.Errorf("connection to ActiveMQ lost: %w", ac.Err()))
	}()
	return c, c.call(ctx, "opening a session", func() (err error) {
		if c.session, err = ac.NewSession(context.Background(), nil); err == nil {
			// To no address: each message names its own.
			c.out, err = c.session.NewSender(context.Background(), "", &amqp.SenderOptions{SettlementMode: amqp.SenderSettleModeUnsettled.Ptr()})
		}
		return err
	}, nil)
}

// fail ends the connection for err, unless it has ended already, and returns why
// it has.
func (c *conn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.dead)
		go c.wire.Kill() // the library closes itself then
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

// guard makes a write that blocks end soon after ctx. To be stopped.
func (c *conn) guard(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, c.wire.Unblock)
}

// call runs f, which waits for the broker without a limit. If ctx ends first, f
// goes on by itself, and late, if not nil, undoes it once it is done.
func (c *conn) call(ctx context.Context, doing string, f func() error, late func()) error {
	done, gone := make(chan error), make(chan struct{})
	defer close(gone)
	go func() {
		err := f()
		select {
		case done <- err:
		case <-gone:
			if late != nil && err == nil {
				late()
			}
		}
	}()
	select {
	case err := <-done:
		if dead := c.failed(); err != nil && dead != nil {
			return dead
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", doing, err)
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case <-c.dead:
		return c.failed()
	}
}

// sent is a message on its way.
type sent struct {
	receipt amqp.SendReceipt
	err     error
}

// Put sends ms and collects the broker's word about each: of a durable message,
// that it is on disk.
func (c *conn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	results := make([]bus.Result, len(ms))
	var good []int // of ms
	var messages []*amqp.Message
	for i, m := range ms {
		switch {
		case !valid(m.Tube.Name):
			results[i].Err = fmt.Errorf("%w: %q", bus.ErrBadTube, m.Tube.Name)
		case len(m.Body) > maxBody:
			results[i].Err = fmt.Errorf("%w: %d bytes, at most %d", bus.ErrTooLarge, len(m.Body), maxBody)
		default:
			results[i].ID = rand.Uint64()>>1 | 1
			good, messages = append(good, i), append(messages, message(results[i].ID, m))
		}
	}
	if len(good) == 0 {
		return results
	}
	sents, err := c.send(ctx, messages)
	for j, i := range good {
		r := &results[i]
		switch {
		case err != nil:
			r.Err = err
		case sents[j].err != nil:
			r.Err = sents[j].err
		default:
			r.Err = c.confirmed(ctx, sents[j].receipt)
		}
		if r.Err != nil {
			r.ID = 0
			r.Err = fmt.Errorf("putting to %s: %w", ms[i].Tube.Name, r.Err)
		}
	}
	return results
}

// send hands messages over. It waits for the Put before, and where the broker
// takes no more, for the broker.
func (c *conn) send(ctx context.Context, ms []*amqp.Message) ([]sent, error) {
	if err := errors.Join(c.usable(), ctx.Err()); err != nil {
		return nil, err
	}
	defer c.guard(ctx)()
	select {
	case c.sending <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.dead:
		return nil, c.failed()
	}
	done := make(chan []sent, 1)
	go func() { // a message that is begun has to be ended
		defer func() { <-c.sending }()
		sents := make([]sent, len(ms))
		for i, m := range ms {
			if sents[i].err = ctx.Err(); sents[i].err == nil {
				sents[i].receipt, sents[i].err = c.out.SendWithReceipt(context.Background(), m, nil)
			}
		}
		done <- sents
	}()
	select {
	case sents := <-done:
		return sents, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.dead:
		return nil, c.failed()
	}
}

// confirmed waits for the broker's word.
func (c *conn) confirmed(ctx context.Context, r amqp.SendReceipt) error {
	state, err := r.Wait(ctx)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return fmt.Errorf("waiting for the confirmation: %w", err)
		}
		return c.fail(fmt.Errorf("waiting for the confirmation: %w", err))
	}
	switch s := state.(type) {
	case *amqp.StateAccepted:
		return nil
	case *amqp.StateRejected:
		switch {
		case s.Error == nil:
			return errors.New("the broker refuses it")
		case s.Error.Condition == amqp.ErrCondMessageSizeExceeded:
			return fmt.Errorf("%w: %w", bus.ErrTooLarge, s.Error)
		case unauthorized(s.Error):
			return fmt.Errorf("%s may not: %w", c.login, s.Error)
		}
		return fmt.Errorf("the broker refuses it: %w", s.Error)
	}
	return fmt.Errorf("the broker could not store it: %v", state)
}

func unauthorized(err error) bool {
	e, ok := errors.AsType[*amqp.Error](err)
	return ok && e.Condition == amqp.ErrCondUnauthorizedAccess
}

// Expire does nothing: the broker knows TTLs.
func (c *conn) Expire(context.Context, string, uint64, time.Duration) error { return nil }

// Sweep does nothing: the broker knows TTLs.
func (c *conn) Sweep(context.Context, func(string) bool, time.Duration) (int, error) { return 0, nil }

// Close gives back what the consumers hold, and ends the connection.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closing = true
	consumers := slices.Collect(maps.Keys(c.consumers))
	c.mu.Unlock()
	defer time.AfterFunc(closeTimeout, c.wire.Kill).Stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, k := range consumers {
		wg.Go(func() { _ = k.close(ctx) })
	}
	wg.Wait()
	c.mu.Lock()
	if c.err == nil {
		c.err = bus.ErrClosed
		close(c.dead)
	}
	c.mu.Unlock()
	_ = c.amqp.Close() // a broker that does not answer has lost us all the same
	return nil
}
