package zeromq

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

const dialTimeout = 10 * time.Second // where ctx has no deadline

// Dial connects to the agent. The agent's own driver listens, unless another
// process of this host does: then it is a client of that one.
func (d *Driver) Dial(ctx context.Context) (bus.Conn, error) {
	if d.seat != nil {
		s, err := d.seat.serve(ctx, d)
		switch {
		case err == nil:
			c, err := s.attach()
			if err != nil {
				return nil, err
			}
			return newConn(newPipe(c), d.Addr()), nil
		case !errors.Is(err, syscall.EADDRINUSE):
			return nil, err
		}
	}
	own, err := d.curve()
	if err != nil {
		return nil, &bus.Permanent{Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	host := d.host
	if host == "" {
		host = "127.0.0.1"
	}
	nd := net.Dialer{KeepAliveConfig: keepAlive}
	c, err := nd.DialContext(ctx, "tcp", net.JoinHostPort(host, d.port))
	if err != nil {
		return nil, d.explain(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	p := newPipe(c)
	_, err = p.handshake(false, own)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.Close()
		return nil, d.explain(ctx, err)
	}
	return newConn(p, d.Addr()), nil
}

// explain says in plain words why connecting failed, and wraps what trying again
// does not mend in a *bus.Permanent.
func (d *Driver) explain(ctx context.Context, err error) error {
	permanent := func(what string) error {
		return &bus.Permanent{Err: fmt.Errorf("the agent at %s %s (%w)", d.Addr(), what, err)}
	}
	mechanism, other := errors.AsType[*otherMechanism](err)
	no, denied := errors.AsType[*refused](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no cbsdmq agent listens at %s: %w", d.Addr(), syscall.ECONNREFUSED)
	case ctx.Err() != nil:
		return fmt.Errorf("the agent at %s does not answer: %w", d.Addr(), ctx.Err())
	case other && mechanism.theirs == "CURVE":
		return permanent("wants CURVE; the keys are curve_key and curve_server")
	case other:
		return permanent("does not speak CURVE; the key curve_key is missing there")
	case denied && no.reason == unknownKey:
		return permanent("does not know the key of curve_key; its curve_clients lists those that it does")
	case denied:
		return permanent("does not let us in")
	case errors.Is(err, errCurve):
		return permanent("does not hold the key that curve_server names")
	}
	return fmt.Errorf("connecting to the agent at %s: %w", d.Addr(), err)
}

// curve reads the keys anew each time, nil if there are none. A client without
// curve_server has the agent's own key: it is on the agent's host.
func (d *Driver) curve() (*curve, error) {
	if d.cfg.CurveKey == "" {
		return nil, nil
	}
	info, err := os.Stat(d.cfg.CurveKey)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, bad("curve_key", "others may read %s", d.cfg.CurveKey).WithHint("chmod 600 %s", d.cfg.CurveKey)
	}
	if err == nil {
		var c *curve
		if c, err = loadSecret(d.cfg.CurveKey); err == nil {
			if c.server = d.server; d.cfg.CurveServer == "" {
				c.server = c.public
			}
			return c, nil
		}
	}
	e := bad("curve_key", "%w", err)
	if errors.Is(err, fs.ErrNotExist) {
		e = e.WithHint("make it with `cbsdmq curve-key %s`", d.cfg.CurveKey)
	}
	return nil, e
}

// agentCurve is curve for the side that listens.
func (d *Driver) agentCurve() (*curve, error) {
	c, err := d.curve()
	if c == nil || err != nil {
		return nil, err
	}
	if c.server != c.public {
		return nil, bad("curve_server", "the public key of this agent's curve_key is %s", c.public).
			WithHint("an agent's curve_key holds the key that clients have as curve_server")
	}
	c.admit = func(client key) error {
		if client == c.public {
			return nil
		}
		if d.cfg.CurveClients == "" {
			return fmt.Errorf("key %s is not this agent's own, and there is no curve_clients", client)
		}
		keys, err := readKeys(d.cfg.CurveClients)
		if err != nil {
			return fmt.Errorf("curve_clients: %w", err)
		}
		if slices.Contains(keys, client) {
			return nil
		}
		return fmt.Errorf("key %s is not in %s", client, d.cfg.CurveClients)
	}
	return c, nil
}
