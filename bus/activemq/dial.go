package activemq

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

const (
	dialTimeout = 10 * time.Second // of one server, where ctx has no deadline
	idleTimeout = 10 * time.Second // a connection that says nothing for as long is dead
)

// Dial connects to the first server that lets us. Each gets an equal share of
// what is left of ctx. The error is a *bus.Permanent if trying again helps with
// none.
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
	texts := make([]string, len(failed))
	for i, err := range failed {
		texts[i] = err.Error()
	}
	return nil, errors.New(strings.Join(texts, "; ")) // wraps no Permanent
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
	ac, err := e.open(ctx, w, secure)
	var c *conn
	if err == nil {
		w.Connected()
		c, err = newConn(ctx, ac, w, e)
	}
	if err == nil && !stop() { // killed in the last moment
		err = ctx.Err()
	}
	if err != nil {
		w.Kill()
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %v: %w", timeout.Round(time.Millisecond), ctx.Err())
		}
		return nil, e.explain(err, w, secure)
	}
	return c, nil
}

// open is the handshakes of TLS, login and AMQP.
func (e endpoint) open(ctx context.Context, w *wire.Conn, secure *tls.Config) (*amqp.Conn, error) {
	var dialer net.Dialer
	nc, err := w.Opened(dialer.DialContext(ctx, "tcp", e.addr))
	if err != nil {
		return nil, err
	}
	if secure != nil {
		tc := tls.Client(nc, secure)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		nc = tc
	}
	login := amqp.SASLTypeAnonymous()
	if e.user != "" || e.password != "" {
		login = amqp.SASLTypePlain(e.user, e.password)
	}
	host, _, _ := net.SplitHostPort(e.addr)
	// Without the deadline: the end of ctx kills the socket.
	return amqp.NewConn(context.WithoutCancel(ctx), nc, &amqp.ConnOptions{
		ContainerID: "cbsdmq-" + rand.Text(), // ActiveMQ lets no two connections have the same
		HostName:    host,
		IdleTimeout: idleTimeout,
		Properties:  map[string]any{"product": "cbsdmq"},
		SASLType:    login,
	})
}

// explain says in plain words why connecting failed, and wraps what trying again
// does not mend in a *bus.Permanent.
func (e endpoint) explain(err error, w *wire.Conn, secure *tls.Config) error {
	head, werr := w.Failure()
	if werr != nil {
		err = werr
	}
	if why := e.reason(err, secure); why != "" {
		return &bus.Permanent{Err: fmt.Errorf("ActiveMQ at %s: %s (%w)", e.addr, why, err)}
	}
	if secure == nil && len(head) > 0 && !strings.HasPrefix(string(head), "AMQP") {
		return fmt.Errorf("connecting to ActiveMQ at %s: what answers there does not speak AMQP 1.0, it says %q: %w", e.addr, head, err)
	}
	return fmt.Errorf("connecting to ActiveMQ at %s: %w", e.addr, err)
}

// reason returns "" if another attempt may succeed. The library has no types for
// what goes wrong in the login.
func (e endpoint) reason(err error, secure *tls.Config) string {
	host, _, _ := net.SplitHostPort(e.addr)
	if why := tlsconf.Reason(err, host); why != "" {
		return why
	}
	switch text := err.Error(); {
	case strings.Contains(text, "remote error: tls:") && strings.Contains(text, "certificate"):
		if secure.GetClientCertificate == nil {
			return "it asks for a certificate of the client; the keys cert and key name one"
		}
		return "it does not accept our certificate, key cert"
	case strings.Contains(text, "auth failed with code 0x1"), strings.Contains(text, "auth failed with code 0x3"):
		return "it refuses " + e.login() + "; the keys are user and password"
	case strings.Contains(text, "no supported auth mechanism") && e.user == "":
		return "it asks who we are; the keys are user and password"
	case strings.Contains(text, "no supported auth mechanism"):
		return "it takes no user and password"
	}
	return ""
}
