package activemq

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/endpoint"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

// idleTimeout: a connection that says nothing for as long is dead.
const idleTimeout = 10 * time.Second

// Dial connects to the first server that lets us.
func (d *Driver) Dial(ctx context.Context) (bus.Conn, error) {
	return endpoint.First(ctx, d.servers, d.dial)
}

func (d *Driver) dial(ctx context.Context, s endpoint.Server, within time.Duration) (bus.Conn, error) {
	var secure *tls.Config
	if s.TLS {
		var err error
		if secure, err = tlsconf.For(d.cfg, s.Addr); err != nil {
			return nil, err
		}
	}
	w := &wire.Conn{}
	stop := context.AfterFunc(ctx, w.Kill)
	defer stop()
	user, password := s.Login(d.cfg)
	ac, err := open(ctx, w, s.Addr, secure, user, password)
	var c *conn
	if err == nil {
		w.Connected()
		c, err = newConn(ctx, ac, w, loginName(user))
	}
	if err == nil && !stop() { // killed in the last moment
		err = ctx.Err()
	}
	if err != nil {
		w.Kill()
		if ctx.Err() != nil {
			err = endpoint.NoAnswer(within, ctx.Err())
		}
		return nil, explain(err, s.Addr, user, w, secure)
	}
	return c, nil
}

// open is the handshakes of TLS, login and AMQP.
func open(ctx context.Context, w *wire.Conn, addr string, secure *tls.Config, user, password string) (*amqp.Conn, error) {
	var dialer net.Dialer
	nc, err := w.Opened(dialer.DialContext(ctx, "tcp", addr))
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
	if user != "" || password != "" {
		login = amqp.SASLTypePlain(user, password)
	}
	host, _, _ := net.SplitHostPort(addr)
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
func explain(err error, addr, user string, w *wire.Conn, secure *tls.Config) error {
	head, werr := w.Failure()
	if werr != nil {
		err = werr
	}
	if why := reason(err, addr, user, secure); why != "" {
		return &bus.Permanent{Err: fmt.Errorf("ActiveMQ at %s: %s (%w)", addr, why, err)}
	}
	if secure == nil && len(head) > 0 && !strings.HasPrefix(string(head), "AMQP") {
		return fmt.Errorf("connecting to ActiveMQ at %s: what answers there does not speak AMQP 1.0, it says %q: %w", addr, head, err)
	}
	return fmt.Errorf("connecting to ActiveMQ at %s: %w", addr, err)
}

// reason returns "" if another attempt may succeed. The library has no types for
// what goes wrong in the login.
func reason(err error, addr, user string, secure *tls.Config) string {
	host, _, _ := net.SplitHostPort(addr)
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
		return "it refuses " + loginName(user) + "; the keys are user and password"
	case strings.Contains(text, "no supported auth mechanism") && user == "":
		return "it asks who we are; the keys are user and password"
	case strings.Contains(text, "no supported auth mechanism"):
		return "it takes no user and password"
	}
	return ""
}
