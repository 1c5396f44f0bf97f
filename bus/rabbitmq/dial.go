package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

const (
	dialTimeout = 10 * time.Second // of one node, where ctx has no deadline
	heartbeat   = 5 * time.Second  // a connection that says nothing for two of them is dead
)

// Dial connects to the first node that lets us. Each gets an equal share of what
// is left of ctx. The error is a *bus.Permanent if trying again helps with none.
func (d *Driver) Dial(ctx context.Context) (bus.Conn, error) {
	var failed []error
	permanent := true
	for i, e := range d.endpoints {
		c, err := d.dial(ctx, e, len(d.endpoints)-i)
		if err == nil {
			return c, nil
		}
		if len(d.endpoints) == 1 || ctx.Err() != nil {
			return nil, err
		}
		_, p := errors.AsType[*bus.Permanent](err)
		permanent = permanent && p
		failed = append(failed, err)
	}
	if permanent {
		return nil, &bus.Permanent{Err: errors.Join(failed...)}
	}
	text := make([]string, len(failed))
	for i, err := range failed {
		text[i] = err.Error()
	}
	return nil, errors.New(strings.Join(text, "; ")) // wraps no Permanent
}

func (d *Driver) dial(ctx context.Context, e endpoint, share int) (*conn, error) {
	timeout := dialTimeout
	if end, ok := ctx.Deadline(); ok {
		timeout = time.Until(end) / time.Duration(share)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	secure, err := d.tlsConfig(e)
	if err != nil {
		return nil, err
	}
	w := &wire.Conn{}
	stop := context.AfterFunc(ctx, w.Kill)
	defer stop()
	scheme := "amqp://"
	if secure != nil {
		scheme = "amqps://"
	}
	ac, err := amqp.DialConfig(scheme+e.addr, amqp.Config{
		SASL:            []amqp.Authentication{&amqp.PlainAuth{Username: e.user, Password: e.password}},
		Vhost:           e.vhost,
		Heartbeat:       heartbeat,
		TLSClientConfig: secure,
		Properties:      amqp.Table{"connection_name": "cbsdmq", "product": "cbsdmq"},
		Dial: func(network, addr string) (net.Conn, error) {
			var nd net.Dialer
			return w.Opened(nd.DialContext(ctx, network, addr))
		},
	})
	if err == nil && !stop() { // killed in the last moment
		ac.Close()
		err = ctx.Err()
	}
	if err != nil {
		w.Kill()
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %v: %w", timeout.Round(time.Millisecond), ctx.Err())
		}
		return nil, e.explain(err, w)
	}
	w.Connected()
	c, err := newConn(ctx, ac, w, d.cfg.Replicas)
	if err != nil {
		return nil, e.explain(err, w)
	}
	return c, nil
}

// explain says in plain words why connecting failed, and wraps what trying again
// does not mend in a *bus.Permanent.
func (e endpoint) explain(err error, w *wire.Conn) error {
	head, werr := w.Failure()
	if werr != nil {
		err = werr
	}
	host, _, _ := net.SplitHostPort(e.addr)
	why := tlsconf.Reason(err, host)
	said, _ := errors.AsType[*amqp.Error](err)
	switch {
	case errors.Is(err, amqp.ErrCredentials), errors.Is(err, amqp.ErrSASL):
		why = "it refuses " + e.login() + "; the keys are user and password"
		if e.user == "guest" {
			why += " (guest may come from the broker's own host only)"
		}
	case errors.Is(err, amqp.ErrVhost), said != nil && said.Code == amqp.NotAllowed:
		why = fmt.Sprintf("%s may not use the vhost %q, or there is none", e.login(), e.vhost)
	}
	if why != "" {
		return &bus.Permanent{Err: fmt.Errorf("RabbitMQ at %s: %s (%w)", e.addr, why, err)}
	}
	if notAMQP(err) || len(head) > 0 && !frame(head) {
		return fmt.Errorf("connecting to RabbitMQ at %s: what answers there does not speak AMQP 0-9-1, it says %q: %w", e.addr, head, err)
	}
	return fmt.Errorf("connecting to RabbitMQ at %s: %w", e.addr, err)
}

func notAMQP(err error) bool {
	return errors.Is(err, amqp.ErrSyntax) || errors.Is(err, amqp.ErrFrame) || errors.Is(err, amqp.ErrUnexpectedFrame)
}

// frame reports whether head begins as a frame of method on channel 0 does, or
// as a TLS record.
func frame(head []byte) bool { return head[0] == 1 || head[0] >= 20 && head[0] <= 23 }
