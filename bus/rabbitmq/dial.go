package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/endpoint"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

// heartbeat: a connection that says nothing for two of them is dead.
const heartbeat = 5 * time.Second

// Dial connects to the first node that lets us.
func (d *Driver) Dial(ctx context.Context) (bus.Conn, error) {
	return endpoint.First(ctx, d.nodes, d.dial)
}

func (d *Driver) dial(ctx context.Context, n endpoint.Server, within time.Duration) (bus.Conn, error) {
	var secure *tls.Config
	if n.TLS {
		var err error
		if secure, err = tlsconf.For(d.cfg, n.Addr); err != nil {
			return nil, err
		}
	}
	w := &wire.Conn{}
	stop := context.AfterFunc(ctx, w.Kill)
	defer stop()
	user, password := d.login(n)
	scheme := "amqp://"
	if secure != nil {
		scheme = "amqps://"
	}
	properties := amqp.Table{"connection_name": "cbsdmq", "product": "cbsdmq"}
	ac, err := amqp.DialConfig(scheme+n.Addr, amqp.Config{
		SASL:            []amqp.Authentication{&plain{amqp.PlainAuth{Username: user, Password: password}, properties}},
		Vhost:           vhost(n),
		Heartbeat:       heartbeat,
		TLSClientConfig: secure,
		Properties:      properties,
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
			err = endpoint.NoAnswer(within, ctx.Err())
		}
		return nil, explain(err, n, user, w)
	}
	w.Connected()
	c, err := newConn(ctx, ac, w, user, d.cfg.Replicas)
	if err != nil {
		w.Kill()
		return nil, explain(err, n, user, w)
	}
	return c, nil
}

// plain is PLAIN of a client that the broker tells when it refuses the login: else
// it is silent for three seconds and closes the connection, which might be any
// fault of the network. The library has no room for that capability, but it asks
// for the response when it has made its list.
type plain struct {
	amqp.PlainAuth
	properties amqp.Table
}

func (p *plain) Response() string {
	if can, ok := p.properties["capabilities"].(amqp.Table); ok {
		can["authentication_failure_close"] = true
	}
	return p.PlainAuth.Response()
}

// explain says in plain words why connecting failed, and wraps what trying again
// does not mend in a *bus.Permanent.
func explain(err error, n endpoint.Server, user string, w *wire.Conn) error {
	head, werr := w.Failure()
	if werr != nil {
		err = werr
	}
	host, _, _ := net.SplitHostPort(n.Addr)
	why := tlsconf.Reason(err, host)
	name := fmt.Sprintf("user %q", user)
	said, _ := errors.AsType[*amqp.Error](err)
	switch said {
	case amqp.ErrCredentials, amqp.ErrVhost: // the library's guess when a connection breaks during the handshake
		said = nil
		err = fmt.Errorf("the connection was lost during the handshake (%w)", err)
	}
	switch {
	case !n.TLS && len(head) > 0 && record(head):
		why = "it speaks TLS; the key is tls"
	case said == nil:
	case said == amqp.ErrSASL, said.Code == amqp.AccessRefused:
		why = "it refuses " + name + "; the keys are user and password"
		if user == "guest" {
			why += " (guest may come from the broker's own host only)"
		}
	case said.Code == amqp.NotAllowed:
		why = fmt.Sprintf("%s may not use the vhost %q, or there is none", name, vhost(n))
	}
	if why != "" {
		return &bus.Permanent{Err: fmt.Errorf("RabbitMQ at %s: %s (%w)", n.Addr, why, err)}
	}
	if notAMQP(err) || len(head) > 0 && !frame(head) {
		return fmt.Errorf("connecting to RabbitMQ at %s: what answers there does not speak AMQP 0-9-1, it says %q: %w", n.Addr, head, err)
	}
	return fmt.Errorf("connecting to RabbitMQ at %s: %w", n.Addr, err)
}

func notAMQP(err error) bool {
	return errors.Is(err, amqp.ErrSyntax) || errors.Is(err, amqp.ErrFrame) || errors.Is(err, amqp.ErrUnexpectedFrame)
}

// frame reports whether head begins as a frame of method on channel 0 does, or
// as a TLS record.
func frame(head []byte) bool { return head[0] == 1 || record(head) }

// record reports whether head begins as a TLS record does.
func record(head []byte) bool { return head[0] >= 20 && head[0] <= 23 }
