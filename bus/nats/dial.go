package nats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/endpoint"
)

// pingInterval: a connection that says nothing for two of them is dead.
const pingInterval = 5 * time.Second

// Dial connects to the first server of the list that lets us, beginning with the
// one that did last time, or behind it if that connection broke.
func (d *Driver) Dial(ctx context.Context) (bus.Conn, error) {
	targets, err := d.targets()
	if err != nil {
		return nil, err
	}
	order := make([]uint32, len(targets))
	first := d.first.Load()
	for i := range order {
		order[i] = (first + uint32(i)) % uint32(len(targets))
	}
	return endpoint.First(ctx, order, func(ctx context.Context, at uint32, within time.Duration) (bus.Conn, error) {
		c, err := targets[at].dial(ctx, within)
		if err != nil {
			return nil, err
		}
		d.first.Store(at)
		c.use(d, at)
		return c, nil
	})
}

// dial connects to one server. ctx ends within that time.
func (e target) dial(ctx context.Context, within time.Duration) (*conn, error) {
	// A server that does not like our certificate says so, but as it hangs up
	// at once that may get lost.
	for try := 1; ; try++ {
		c, head, err := e.attempt(ctx)
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			err = endpoint.NoAnswer(within, ctx.Err())
		case hungUp(err) && try < 3:
			continue
		}
		return nil, e.explain(err, head)
	}
}

// attempt returns what the server said first beside an error.
func (e target) attempt(ctx context.Context) (*conn, []byte, error) {
	w := &socket{ctx: ctx, process: e.process}
	c := newConn(w)
	defer context.AfterFunc(ctx, w.Kill)()
	opts := []nats.Option{
		nats.Name("cbsdmq"),
		nats.NoReconnect(),
		nats.IgnoreDiscoveredServers(),
		nats.SkipHostLookup(),     // the net.Dialer does it, within ctx
		nats.Timeout(time.Minute), // ctx is first
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(2),
		nats.SetCustomDialer(w),
		nats.ClosedHandler(c.lost),
		nats.ErrorHandler(c.asyncError),
	}
	if e.process != nil {
		opts = append(opts, nats.InProcessServer(w))
	}
	if e.tls != nil {
		opts = append(opts, nats.Secure(e.tls))
	}
	if e.login.option != nil {
		opts = append(opts, e.login.option)
	}
	nc, err := nats.Connect("nats://"+e.addr, opts...)
	if err != nil {
		head, werr := w.Failure()
		if werr != nil { // says more than nats.ErrNoServers
			err = werr
		}
		return nil, head, err
	}
	w.Connected()
	c.nc = nc
	c.cluster = nc.ConnectedClusterName()
	c.grouped = c.cluster == "" && nc.ConnectedServerName() == serverName
	js := []jetstream.JetStreamOpt{jetstream.WithPublishAsyncMaxPending(1 << 20)}
	if c.cluster != "" {
		js = append(js, jetstream.WithPublishAsyncTimeout(attempt))
	}
	if c.js, err = jetstream.New(nc, js...); err == nil {
		c.version, err = parseVersion(nc.ConnectedServerVersion())
	}
	if err != nil {
		nc.Close()
		return nil, nil, fmt.Errorf("version %q: %w", nc.ConnectedServerVersion(), err)
	}
	return c, nil, nil
}

// use tells c of the driver that has dialled its endpoint at.
func (c *conn) use(d *Driver, at uint32) {
	d.noTTL.Store(!c.version.hasTTL())
	c.embedded, c.replicas = d.embedded, d.replicas
	c.OnFail(func() { d.first.CompareAndSwap(at, at+1) })
}

// hungUp reports whether the server closed a connection whose TLS handshake had
// been done.
func hungUp(err error) bool {
	return errors.Is(err, nats.ErrTLS) &&
		(errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET))
}
