package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
)

// closeTimeout bounds Close where the server does not answer.
const closeTimeout = 1500 * time.Millisecond

// conn is a connection that does not come back: whatever breaks it sets err
// once and closes dead.
type conn struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	wire     *socket
	version  version
	embedded bool   // by the configuration
	grouped  bool   // Put has to ask for a sync
	cluster  string // its name; "" = the server is alone
	replicas int    // of the configuration
	broken   func() // called once when the connection has failed; nil = nothing

	pullExpires time.Duration

	dead chan struct{}

	mu        sync.Mutex
	err       error // why dead
	closing   bool
	streams   map[string]*stream
	consumers map[*consumer]struct{}
}

func newConn(w *socket) *conn {
	return &conn{
		pullExpires: pullExpires,
		wire:        w,
		dead:        make(chan struct{}),
		streams:     map[string]*stream{},
		consumers:   map[*consumer]struct{}{},
	}
}

// fail ends the connection for err, unless it has ended already, and returns
// why it has.
func (c *conn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.dead)
		if c.broken != nil && !c.closing {
			c.broken()
		}
		go c.wire.Kill() // nats.go closes itself then
	}
	return c.err
}

// failed returns why the connection has ended, or nil.
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

// lost is called by nats.go when the socket has ended.
func (c *conn) lost(nc *nats.Conn) {
	err := nc.LastError()
	if err == nil {
		err = nats.ErrConnectionClosed
	}
	_ = c.fail(fmt.Errorf("connection to NATS lost: %w", err))
}

// asyncError is called by nats.go for what the server says out of turn. What
// it forbids would be waited for in vain.
func (c *conn) asyncError(_ *nats.Conn, _ *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		_ = c.fail(fmt.Errorf("NATS does not permit it: %w", err))
	}
}

// guard makes what blocks in nats.go end soon after ctx. To be stopped.
func (c *conn) guard(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, c.wire.Unblock)
}

// call says what the error of a request means for the connection: nothing if
// it is the end of ctx, its end otherwise.
func (c *conn) call(ctx context.Context, doing string, err error) error {
	if dead := c.failed(); dead != nil {
		return dead
	}
	switch {
	case ctx.Err() != nil && c.cluster != "" && !errors.Is(err, ctx.Err()):
		return fmt.Errorf("%s: %w (%w)", doing, err, ctx.Err())
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	}
	switch {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled):
		err = fmt.Errorf("start the server with -js, or with a jetstream block in its configuration: %w", err)
	case alone(err):
		err = fmt.Errorf("the server is not in a cluster, which the key replicas is for: %w", err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		err = fmt.Errorf("the account of this user needs JetStream: %w", err)
	}
	return c.fail(fmt.Errorf("%s: %w", doing, err))
}

func (c *conn) maxBody() int { return int(c.nc.MaxPayload()) - headroom }

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
		// What was published last is on its way before the socket ends. An
		// error means that the server does not listen any more.
		_ = c.nc.FlushWithContext(ctx)
	}
	c.mu.Lock()
	if c.err == nil {
		c.err = bus.ErrClosed
		close(c.dead)
	}
	c.mu.Unlock()
	defer time.AfterFunc(closeTimeout, c.wire.Kill).Stop()
	c.nc.Close()
	return nil
}
