package activemq

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/wire"
)

// conn is a connection that does not come back.
//
// The library takes the deadline of a ctx for that of a write, and a write that
// misses it breaks the connection. So it is given none: see Call and Guard.
type conn struct {
	*wire.Session
	amqp    *amqp.Conn
	login   string // for messages
	session *amqp.Session
	out     *amqp.Sender  // to any queue
	sending chan struct{} // held by the Put that sends, so that messages keep their order
	plugin  plugin
}

func newConn(ctx context.Context, ac *amqp.Conn, w *wire.Conn, login string) (*conn, error) {
	c := &conn{
		Session: wire.NewSession(w), amqp: ac, login: login, sending: make(chan struct{}, 1),
	}
	go func() {
		<-ac.Done()
		_ = c.Fail(fmt.Errorf("connection to ActiveMQ lost: %w", ac.Err()))
	}()
	return c, c.Call(ctx, "opening a session", func() (err error) {
		if c.session, err = ac.NewSession(context.Background(), nil); err == nil {
			// To no address: each message names its own.
			c.out, err = c.session.NewSender(context.Background(), "", &amqp.SenderOptions{SettlementMode: amqp.SenderSettleModeUnsettled.Ptr()})
		}
		return err
	}, nil)
}

// sent is a message on its way.
type sent struct {
	receipt amqp.SendReceipt
	err     error
}

// Put sends ms and collects the broker's word about each: of a durable message,
// that it is on disk.
func (c *conn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	results := make([]bus.Result, len(ms))
	var good []int // of ms
	var messages []*amqp.Message
	for i, m := range ms {
		switch {
		case !valid(m.Tube.Name):
			results[i].Err = fmt.Errorf("%w: %q", bus.ErrBadTube, m.Tube.Name)
		case len(m.Body) > maxBody:
			results[i].Err = fmt.Errorf("%w: %d bytes, at most %d", bus.ErrTooLarge, len(m.Body), maxBody)
		default:
			results[i].ID = rand.Uint64()>>1 | 1
			good, messages = append(good, i), append(messages, message(results[i].ID, m))
		}
	}
	if len(good) == 0 {
		return results
	}
	sents, err := c.send(ctx, messages)
	for j, i := range good {
		r := &results[i]
		switch {
		case err != nil:
			r.Err = err
		case sents[j].err != nil:
			r.Err = sents[j].err
		default:
			r.Err = c.confirmed(ctx, sents[j].receipt)
		}
		if r.Err != nil {
			r.ID = 0
			r.Err = fmt.Errorf("putting to %s: %w", ms[i].Tube.Name, r.Err)
		}
	}
	return results
}

// send hands messages over. It waits for the Put before, and where the broker
// takes no more, for the broker.
func (c *conn) send(ctx context.Context, ms []*amqp.Message) ([]sent, error) {
	if err := errors.Join(c.Usable(), ctx.Err()); err != nil {
		return nil, err
	}
	defer c.Guard(ctx)()
	select {
	case c.sending <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.Dead():
		return nil, c.Failed()
	}
	done := make(chan []sent, 1)
	go func() { // a message that is begun has to be ended
		defer func() { <-c.sending }()
		sents := make([]sent, len(ms))
		err := c.Together(func() {
			for i, m := range ms {
				if sents[i].err = ctx.Err(); sents[i].err == nil {
					sents[i].receipt, sents[i].err = c.out.SendWithReceipt(context.Background(), m, nil)
				}
			}
		})
		if err != nil {
			_ = c.Fail(fmt.Errorf("connection to ActiveMQ lost: %w", err)) // confirmed sees it
		}
		done <- sents
	}()
	select {
	case sents := <-done:
		return sents, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.Dead():
		return nil, c.Failed()
	}
}

// confirmed waits for the broker's word.
func (c *conn) confirmed(ctx context.Context, r amqp.SendReceipt) error {
	state, err := r.Wait(ctx)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return fmt.Errorf("waiting for the confirmation: %w", err)
		}
		return c.Fail(fmt.Errorf("waiting for the confirmation: %w", err))
	}
	switch s := state.(type) {
	case *amqp.StateAccepted:
		return nil
	case *amqp.StateRejected:
		switch {
		case s.Error == nil:
			return errors.New("the broker refuses it")
		case s.Error.Condition == amqp.ErrCondMessageSizeExceeded:
			return fmt.Errorf("%w: %w", bus.ErrTooLarge, s.Error)
		case unauthorized(s.Error):
			return &bus.Permanent{Err: fmt.Errorf("%s may not: %w", c.login, s.Error)}
		}
		return fmt.Errorf("the broker refuses it: %w", s.Error)
	}
	return fmt.Errorf("the broker could not store it: %v", state)
}

func unauthorized(err error) bool {
	e, ok := errors.AsType[*amqp.Error](err)
	return ok && e.Condition == amqp.ErrCondUnauthorizedAccess
}

// Expire does nothing: the broker knows TTLs.
func (c *conn) Expire(context.Context, string, uint64, time.Duration) error { return nil }

// Sweep does nothing: the broker knows TTLs.
func (c *conn) Sweep(context.Context, func(string) bool, time.Duration) (int, error) { return 0, nil }

// Close gives back what the consumers hold, and ends the connection.
func (c *conn) Close() error {
	c.Session.Close(func() { _ = c.amqp.Close() }) // a broker that does not answer has lost us all the same
	return nil
}
