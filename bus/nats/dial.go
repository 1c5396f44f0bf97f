package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
)

const (
	dialTimeout  = 10 * time.Second // of one server, where ctx has no deadline
	pingInterval = 5 * time.Second  // a connection that says nothing for two of them is dead
)

// Dial connects to the first server of the list that lets us. Each gets an
// equal share of what is left of ctx. The error is a *bus.Permanent if trying
// again helps with none of them.
func (d *Driver) Dial(ctx context.Context) (bus.Conn, error) {
	endpoints, err := d.endpoints()
	if err != nil {
		return nil, err
	}
	var failed []error
	permanent := true
	for i, e := range endpoints {
		c, err := e.dial(ctx, len(endpoints)-i)
		if err == nil {
			c.embedded = d.embedded
			d.noTTL.Store(!c.version.hasTTL())
			return c, nil
		}
		if len(endpoints) == 1 || ctx.Err() != nil {
			return nil, err
		}
		_, p := errors.AsType[*bus.Permanent](err)
		permanent = permanent && p
		failed = append(failed, err)
	}
	if permanent {
		return nil, &bus.Permanent{Err: errors.Join(failed...)}
	}
	var text []string
	for _, err := range failed {
		text = append(text, err.Error())
	}
	return nil, errors.New(strings.Join(text, "; ")) // wraps no Permanent
}

// dial connects to one server in 1/share of what is left of ctx.
func (e endpoint) dial(ctx context.Context, share int) (*conn, error) {
	timeout := dialTimeout
	if end, ok := ctx.Deadline(); ok {
		timeout = time.Until(end) / time.Duration(share)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	w := &wire{ctx: ctx, process: e.process}
	c := newConn(w)
	defer context.AfterFunc(ctx, w.kill)()
	opts := []nats.Option{
		nats.Name("cbsdmq"),
		nats.NoReconnect(),
		nats.IgnoreDiscoveredServers(),
		nats.SkipHostLookup(),               // the net.Dialer does it, within ctx
		nats.Timeout(timeout + time.Second), // ctx is first
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
		werr, head := w.failure()
		switch {
		case ctx.Err() != nil:
			err = fmt.Errorf("no answer within %v: %w", timeout.Round(time.Millisecond), ctx.Err())
		case werr != nil: // says more than nats.ErrNoServers
			err = werr
		}
		return nil, e.explain(err, head)
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1<<20))
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("using JetStream at %s: %w", e.addr, err)
	}
	w.connected()
	c.nc, c.js = nc, js
	if c.version, err = parseVersion(nc.ConnectedServerVersion()); err != nil {
		nc.Close()
		return nil, fmt.Errorf("version %q of NATS at %s: %w", nc.ConnectedServerVersion(), e.addr, err)
	}
	return c, nil
}
