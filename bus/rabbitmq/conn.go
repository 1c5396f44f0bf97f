package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

// putHeader is when a message was put, in microseconds since 1970.
const putHeader = "put"

type conn struct {
	*wire.Session
	amqp     *amqp.Connection
	user     string // for messages
	replicas int

	puts sync.Mutex // one Put publishes at a time, so that messages keep their order
	out  *amqp.Channel

	chores chan func(*amqp.Channel) error

	mu      sync.Mutex
	known   map[string]bool      // queues that were there
	renewed map[string]time.Time // mailboxes
	awaited map[uint64]bool      // messages of Puts that wait, true: it met no queue
}

func newConn(ctx context.Context, ac *amqp.Connection, w *wire.Conn, user string, replicas int) (*conn, error) {
	c := &conn{
		Session: wire.NewSession(w), amqp: ac, user: user, replicas: replicas,
		chores: make(chan func(*amqp.Channel) error, choresMax),
		known:  map[string]bool{}, renewed: map[string]time.Time{}, awaited: map[uint64]bool{},
	}
	go c.watch(ac.NotifyClose(make(chan *amqp.Error, 1)), nil)
	err := c.Call(ctx, "opening a channel", func() (err error) {
		if c.out, err = ac.Channel(); err == nil {
			err = c.out.Confirm(false)
		}
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	go c.watch(c.out.NotifyClose(make(chan *amqp.Error, 1)), nil)
	first := c.out.NotifyReturn(make(chan amqp.Return))
	go c.collectReturns(first, c.out.NotifyReturn(make(chan amqp.Return)))
	go c.doChores()
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
		_ = c.Fail(c.denied(fmt.Errorf("connection to RabbitMQ lost: %w", err)))
	case <-c.Dead():
	}
}

// denied is err, as a *bus.Permanent if it says that our user lacks a right.
func (c *conn) denied(err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.AccessRefused {
		return &bus.Permanent{Err: fmt.Errorf("user %q may not: %w", c.user, err)}
	}
	return err
}

// prepare makes the queue of t if it is not there, and remembers that it is. A
// mailbox is made by put.
func (c *conn) prepare(ctx context.Context, t bus.Tube) error {
	if !valid(t.Name) {
		return fmt.Errorf("%w: %q", bus.ErrBadTube, t.Name)
	}
	c.mu.Lock()
	known := c.known[t.Name]
	c.mu.Unlock()
	if known || t.Kind == bus.Mailbox {
		return nil
	}
	err := c.Call(ctx, "looking for the queue "+t.Name, func() error { return c.look(t) }, nil)
	if err != nil {
		return c.denied(err)
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
	if _, err = ch.QueueDeclare(t.Name, true, false, false, false, c.arguments(t.Kind)); err == nil {
		c.made(t.Name)
	}
	return err
}

// arguments are those of a queue that we make.
func (c *conn) arguments(kind bus.Kind) amqp.Table {
	if kind == bus.Mailbox {
		return amqp.Table{"x-expires": MailboxMaxAge.Milliseconds()}
	}
	if c.replicas <= 1 {
		return nil
	}
	args := amqp.Table{"x-queue-type": "quorum", "x-quorum-initial-group-size": int64(c.replicas)}
	if dropsWorn(c.amqp.Properties) {
		args["x-delivery-limit"] = int64(-1)
	}
	return args
}

// dropsWorn reports whether the server drops what has come from a quorum queue 20
// times, unless the queue is made otherwise: from 4.0 on. Older ones do not know
// that otherwise.
func dropsWorn(server amqp.Table) bool {
	version, _ := server["version"].(string)
	major, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n >= 4
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
//
// Messages of one Put may change their order where their queue is not there, and
// somebody makes it at that moment.
func (c *conn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	defer c.Guard(ctx)()
	results := make([]bus.Result, len(ms))
	for i, m := range ms {
		switch {
		case len(m.Body) > maxBody:
			results[i].Err = fmt.Errorf("%w: %d bytes, at most %d", bus.ErrTooLarge, len(m.Body), maxBody)
		default:
			results[i].Err = c.prepare(ctx, m.Tube)
		}
	}
	again := c.put(ctx, ms, results, false)
	made := "" // the last of the mailboxes
	for _, i := range again {
		if ms[i].Tube.Kind == bus.Mailbox {
			made = ms[i].Tube.Name
		}
	}
	for tries := 0; len(again) > 0 && tries < 10; tries++ {
		some := make([]bus.Message, len(again))
		for j, i := range again {
			some[j] = ms[i]
		}
		rs := make([]bus.Result, len(again))
		var left []int
		for _, j := range c.put(ctx, some, rs, true) {
			left = append(left, again[j])
		}
		for j, i := range again {
			results[i] = rs[j]
		}
		again = left
	}
	for i, m := range ms {
		if m.Tube.Kind == bus.Mailbox && results[i].Err == nil {
			c.used(m.Tube.Name)
		}
	}
	if made != "" {
		c.made(made)
	}
	return results
}

// errNoQueue: the broker had no queue for a message and has dropped it.
var errNoQueue = errors.New("there is no queue")

// put publishes those of ms that have no error yet, waits for the broker, and
// returns which of them met no queue. With assert mailboxes are made that are not
// there; the connection ends over a pool's queue that is not there any more.
func (c *conn) put(ctx context.Context, ms []bus.Message, results []bus.Result, assert bool) (again []int) {
	for i, confirm := range c.publish(ctx, ms, results, assert) {
		if confirm != nil {
			results[i].Err = c.confirmed(ctx, confirm)
			if returned := c.waited(results[i].ID); returned && results[i].Err == nil {
				results[i].Err = fmt.Errorf("putting to %s: %w", ms[i].Tube.Name, errNoQueue)
				again = append(again, i)
			}
		}
		if results[i].Err != nil {
			results[i].ID = 0
		}
	}
	return again
}

// collectReturns notes which messages the broker returns for want of a queue. The
// library hands each to both channels before it looks at the confirmation: when
// the second one takes it, it is noted.
func (c *conn) collectReturns(first, second <-chan amqp.Return) {
	for r := range first {
		if id, err := strconv.ParseUint(r.MessageId, 10, 64); err == nil {
			c.mu.Lock()
			if _, ok := c.awaited[id]; ok {
				c.awaited[id] = true
			}
			c.mu.Unlock()
		}
		<-second
	}
}

// await is called before message id is published, waited when nobody waits for it
// any more, which reports whether it was returned.
func (c *conn) await(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.awaited[id] = false
}

func (c *conn) waited(id uint64) (returned bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	returned = c.awaited[id]
	delete(c.awaited, id)
	return returned
}

func (c *conn) publish(ctx context.Context, ms []bus.Message, results []bus.Result, assert bool) []*amqp.DeferredConfirmation {
	c.puts.Lock()
	defer c.puts.Unlock()
	confirms := make([]*amqp.DeferredConfirmation, len(ms))
	asserted := map[string]bool{}
	err := c.Together(func() {
		for i, m := range ms {
			if results[i].Err != nil {
				continue
			}
			err := errors.Join(c.Usable(), ctx.Err())
			if assert && err == nil && !asserted[m.Tube.Name] {
				err = c.assert(c.out, m.Tube)
				asserted[m.Tube.Name] = true
			}
			if err == nil {
				id := rand.Uint64()>>1 | 1
				results[i].ID = id
				c.await(id)
				if confirms[i], err = c.out.PublishWithDeferredConfirm("", m.Tube.Name, true, false, publishing(id, m)); err != nil {
					c.waited(id)
				}
			}
			if err != nil {
				if c.out.IsClosed() {
					<-c.Dead() // watch knows why
				}
				if dead := c.Failed(); dead != nil {
					err = dead
				}
				results[i].Err = fmt.Errorf("putting to %s: %w", m.Tube.Name, err)
			}
		}
	})
	if err != nil {
		_ = c.Fail(fmt.Errorf("connection to RabbitMQ lost: %w", err)) // confirmed sees it
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
		if c.out.IsClosed() { // then the library takes all for not stored
			<-c.Dead()
			return c.Failed()
		}
		return errors.New("the broker could not store it")
	case <-ctx.Done():
		return fmt.Errorf("waiting for the confirmation: %w", ctx.Err())
	case <-c.Dead():
		return c.Failed()
	}
}

// Expire does nothing: the broker knows TTLs.
func (c *conn) Expire(context.Context, string, uint64, time.Duration) error { return nil }

// Sweep does nothing: the broker knows TTLs.
func (c *conn) Sweep(context.Context, func(string) bool, time.Duration) (int, error) { return 0, nil }

// Inspect creates nothing.
func (c *conn) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	defer c.Guard(ctx)()
	if err := c.Usable(); err != nil {
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
	err := c.Call(ctx, "inspecting "+t.Name, func() error {
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
	c.Session.Close(func() { _ = c.amqp.Close() }) // a broker that does not answer has lost us all the same
	return nil
}
