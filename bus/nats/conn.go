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
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

// flushTimeout bounds what Close waits for a server that does not answer.
const flushTimeout = time.Second

type conn struct {
	*wire.Session
	nc       *nats.Conn
	js       jetstream.JetStream
	version  version
	embedded bool   // by the configuration
	grouped  bool   // Put has to ask for a sync
	cluster  string // its name; "" = the server is alone
	replicas int    // of the configuration

	pullExpires time.Duration

	mu      sync.Mutex
	streams map[string]*stream
}

func newConn(w *socket) *conn {
	return &conn{Session: wire.NewSession(&w.Conn), pullExpires: pullExpires, streams: map[string]*stream{}}
}

// lost is called by nats.go when the socket has ended.
func (c *conn) lost(nc *nats.Conn) {
	err := nc.LastError()
	if err == nil {
		err = nats.ErrConnectionClosed
	}
	_ = c.Fail(fmt.Errorf("connection to NATS lost: %w", err))
}

// asyncError is called by nats.go for what the server says out of turn. What
// it forbids would be waited for in vain.
func (c *conn) asyncError(_ *nats.Conn, _ *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		_ = c.Fail(&bus.Permanent{Err: fmt.Errorf("NATS does not permit it: %w", err)})
	}
}

// call says what the error of a request means for the connection: nothing if
// it is the end of ctx, its end otherwise.
func (c *conn) call(ctx context.Context, doing string, err error) error {
	if dead := c.Failed(); dead != nil {
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
	return c.Fail(fmt.Errorf("%s: %w", doing, err))
}

func (c *conn) maxBody() int { return int(c.nc.MaxPayload()) - headroom }

// Close gives back what the consumers hold, and ends the connection.
func (c *conn) Close() error {
	failed := c.Failed()
	c.Session.Close(func() {
		if failed == nil {
			// What was published last is on its way before the socket ends. An
			// error means that the server does not listen any more.
			_ = c.nc.FlushTimeout(flushTimeout)
		}
		c.nc.Close()
	})
	return nil
}
