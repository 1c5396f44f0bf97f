package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

// closeTimeout bounds Close where the broker does not answer.
const closeTimeout = 1500 * time.Millisecond

// putHeader is when a message was put, in microseconds since 1970.
const putHeader = "put"

// conn is a connection that does not come back: whatever breaks it sets err
// once and closes dead.
type conn struct {
	amqp     *amqp.Connection
	wire     *wire.Conn
	replicas int
	dead     chan struct{}

	puts  sync.Mutex // one Put publishes at a time, so that messages keep their order
	out   *amqp.Channel
	known map[string]bool // queues that were there

	mu        sync.Mutex
	err       error // why dead
	closing   bool
	consumers map[*consumer]struct{}
}

func newConn(ctx context.Context, ac *amqp.Connection, w *wire.Conn, replicas int) (*conn, error) {
	c := &conn{
		amqp: ac, wire: w, replicas: replicas, dead: make(chan struct{}),
		known: map[string]bool{}, consumers: map[*consumer]struct{}{},
	}
	go c.watch(ac.NotifyClose(make(chan *amqp.Error, 1)), nil)
	err := c.call(ctx, "opening a channel", func() (err error) {
		if c.out, err = ac.Channel(); err == nil {
			err = c.out.Confirm(false)
		}
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	go c.watch(c.out.NotifyClose(make(chan *amqp.Error, 1)), nil)
	return c, nil
}

// watch ends the connection when it has ended, or one of its channels has that
// was not over.
func (c *conn) watch(closed <-chan *amqp.Error, over <-chan struct{}) {
	select {
	case <-over:
	case err := <-closed:
		select {
		case <-over:
			return
		default:
		}
		if err == nil {
			err = amqp.ErrClosed
		}
		_ = c.fail(fmt.Errorf("connection to RabbitMQ lost: %w", err))
	case <-c.dead:
	}
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
			if late != nil {
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

// prepare makes the queue of t if it is not there, and remembers that it is.
func (c *conn) prepare(ctx context.Context, t bus.Tube) error {
	if !valid(t.Name) {
		return fmt.Errorf("%w: %q", bus.ErrBadTube, t.Name)
	}
	c.mu.Lock()
	known := c.known[t.Name]
	c.mu.Unlock()
	if known || t.Kind == bus.Mailbox {
		return nil // a mailbox is made each time, see make
	}
	err := c.call(ctx, "looking for the queue "+t.Name, func() error { return c.look(t) }, nil)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.known[t.Name] = true
	c.mu.Unlock()
	return nil
}

// look finds the queue of t or makes it, on a channel of its own, as the broker
// closes the channel over what it refuses.
func (c *conn) look(t bus.Tube) error {
	ch, err := c.amqp.Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	_, err = ch.QueueDeclarePassive(t.Name, true, false, false, false, nil)
	if e, ok := errors.AsType[*amqp.Error](err); !ok || e.Code != amqp.NotFound {
		return err
	}
	if ch, err = c.amqp.Channel(); err != nil {
		return err
	}
	defer ch.Close()
	_, err = ch.QueueDeclare(t.Name, true, false, false, false, c.arguments(t.Kind))
	return err
}

// arguments are those of a queue that we make.
func (c *conn) arguments(kind bus.Kind) amqp.Table {
	if kind == bus.Mailbox {
		return amqp.Table{"x-expires": MailboxMaxAge.Milliseconds()}
	}
	if c.replicas > 1 {
		return amqp.Table{"x-queue-type": "quorum", "x-quorum-initial-group-size": int64(c.replicas)}
	}
	return nil
}

// assert has the broker close ch if the queue of t is not there; a mailbox is
// made. What is published behind it on ch cannot get lost for want of a queue,
// and nothing is waited for.
func (c *conn) assert(ch *amqp.Channel, t bus.Tube) error {
	if t.Kind == bus.Mailbox {
		_, err := ch.QueueDeclare(t.Name, true, false, false, true, c.arguments(t.Kind))
		return err
	}
	_, err := ch.QueueDeclarePassive(t.Name, true, false, false, true, nil)
	return err
}

// valid reports whether a queue can have that name. amq. is the broker's own.
func valid(name string) bool { return bus.ValidTube(name) && (len(name) < 4 || name[:4] != "amq.") }

// Put publishes ms and collects the broker's confirmations: of a persistent
// message, that it is on disk.
func (c *conn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	defer c.guard(ctx)()
	results := make([]bus.Result, len(ms))
	for i, m := range ms {
		switch {
		case len(m.Body) > maxBody:
			results[i].Err = fmt.Errorf("%w: %d bytes, at most %d", bus.ErrTooLarge, len(m.Body), maxBody)
		default:
			results[i].Err = c.prepare(ctx, m.Tube)
		}
	}
	confirms := c.publish(ctx, ms, results)
	for i, confirm := range confirms {
		if confirm != nil {
			results[i].Err = c.confirmed(ctx, confirm)
		}
		if results[i].Err != nil {
			results[i].ID = 0
		}
	}
	return results
}

func (c *conn) publish(ctx context.Context, ms []bus.Message, results []bus.Result) []*amqp.DeferredConfirmation {
	c.puts.Lock()
	defer c.puts.Unlock()
	confirms := make([]*amqp.DeferredConfirmation, len(ms))
	asserted := map[string]bool{}
	for i, m := range ms {
		if results[i].Err != nil {
			continue
		}
		err := errors.Join(c.usable(), ctx.Err())
		if err == nil && !asserted[m.Tube.Name] {
			err = c.assert(c.out, m.Tube)
			asserted[m.Tube.Name] = true
		}
		if err == nil {
			id := rand.Uint64()>>1 | 1
			results[i].ID = id
			confirms[i], err = c.out.PublishWithDeferredConfirm("", m.Tube.Name, false, false, publishing(id, m))
		}
		if err != nil {
			if dead := c.failed(); dead != nil {
				err = dead
			}
			results[i].Err = fmt.Errorf("putting to %s: %w", m.Tube.Name, err)
		}
	}
	return confirms
}

func publishing(id uint64, m bus.Message) amqp.Publishing {
	now := time.Now()
	p := amqp.Publishing{
		DeliveryMode: amqp.Persistent,
		MessageId:    strconv.FormatUint(id, 10),
		Timestamp:    now,
		Headers:      amqp.Table{putHeader: now.UnixMicro()},
		Body:         m.Body,
	}
	if m.TTL > 0 {
		p.Expiration = strconv.FormatInt(max(1, m.TTL.Milliseconds()), 10)
	}
	return p
}

func (c *conn) confirmed(ctx context.Context, confirm *amqp.DeferredConfirmation) error {
	select {
	case <-confirm.Done():
		if confirm.Acked() {
			return nil
		}
		if dead := c.failed(); dead != nil {
			return dead
		}
		return errors.New("the broker could not store it")
	case <-ctx.Done():
		return fmt.Errorf("waiting for the confirmation: %w", ctx.Err())
	case <-c.dead:
		return c.failed()
	}
}

// Expire does nothing: the broker knows TTLs.
func (c *conn) Expire(context.Context, string, uint64, time.Duration) error { return nil }

// Sweep does nothing: the broker knows TTLs.
func (c *conn) Sweep(context.Context, func(string) bool, time.Duration) (int, error) { return 0, nil }

// Inspect creates nothing.
func (c *conn) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	defer c.guard(ctx)()
	if err := c.usable(); err != nil {
		return bus.Info{}, err
	}
	if !valid(t.Name) {
		return bus.Info{}, fmt.Errorf("%w: %q", bus.ErrBadTube, t.Name)
	}
	info := bus.Info{
		Server:    fmt.Sprintf("%v %v", c.amqp.Properties["product"], c.amqp.Properties["version"]),
		Durable:   true,
		MaxBody:   maxBody,
		Consumers: -1, // those that wait at this moment are known, if there are any
	}
	err := c.call(ctx, "inspecting "+t.Name, func() error {
		ch, err := c.amqp.Channel()
		if err != nil {
			return err
		}
		defer ch.Close()
		q, err := ch.QueueDeclarePassive(t.Name, true, false, false, false, nil)
		if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.NotFound {
			return nil
		}
		info.Ready = q.Messages
		if q.Consumers > 0 {
			info.Consumers = q.Consumers
		}
		return err
	}, nil)
	return info, err
}

// Close gives back what the consumers hold, and ends the connection.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closing = true
	consumers := make([]*consumer, 0, len(c.consumers))
	for k := range c.consumers {
		consumers = append(consumers, k)
	}
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
