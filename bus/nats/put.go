package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
)

const (
	ttlHeader    = "Nats-TTL"   // whole seconds; the server's own, since 2.11
	ownTTLHeader = "Cbsdmq-TTL" // milliseconds; where the server has none

	// window is how many messages of one Put may be without confirmation.
	window = 256
)

// sent is a message on its way.
type sent struct {
	place  place
	stream *stream
	future jetstream.PubAckFuture
	err    error // it was not sent
}

// Put publishes ms one after the other and collects the confirmations. Those of
// the embedded broker say that a message is stored, not that it is synced.
func (c *conn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	defer c.guard(ctx)()
	results := make([]bus.Result, len(ms))
	out := make([]sent, len(ms))
	for i := range ms {
		if i >= window {
			results[i-window] = c.confirmed(ctx, out[i-window])
		}
		out[i] = c.send(ctx, ms[i])
	}
	for i := max(0, len(ms)-window); i < len(ms); i++ {
		results[i] = c.confirmed(ctx, out[i])
	}
	if c.grouped {
		c.settle(ctx, out, results)
	}
	return results
}

// settle has the streams synced that took a message in. What cannot be synced
// is not confirmed.
func (c *conn) settle(ctx context.Context, out []sent, results []bus.Result) {
	synced := map[string]error{}
	for i, m := range out {
		if results[i].Err != nil {
			continue
		}
		err, done := synced[m.place.stream]
		if !done {
			err = c.sync(ctx, m.place.stream)
			synced[m.place.stream] = err
		}
		if err != nil {
			results[i] = bus.Result{Err: fmt.Errorf("putting to %s: %w", m.place.subject, err)}
		}
	}
}

func (c *conn) send(ctx context.Context, m bus.Message) sent {
	if err := c.usable(); err != nil {
		return sent{err: err}
	}
	if err := ctx.Err(); err != nil {
		return sent{err: err}
	}
	p, err := placeOf(m.Tube)
	if err != nil {
		return sent{err: err}
	}
	if len(m.Body) > c.maxBody() {
		return sent{err: fmt.Errorf("%w: %d bytes, at most %d", bus.ErrTooLarge, len(m.Body), c.maxBody())}
	}
	s, err := c.stream(ctx, p)
	if err != nil {
		return sent{err: c.call(ctx, "putting to "+m.Tube.Name, err)}
	}
	msg := &nats.Msg{Subject: p.subject, Data: m.Body}
	if m.TTL > 0 {
		msg.Header = ttl(s, m.TTL)
	}
	// No Nats-Msg-Id: the server would swallow a job that is sent again with
	// another reply address.
	f, err := c.js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0))
	if err != nil {
		return sent{err: c.call(ctx, "putting to "+m.Tube.Name, err)}
	}
	if p.kind == bus.Mailbox {
		c.keep(p, s, len(m.Body))
	}
	return sent{place: p, stream: s, future: f}
}

func (c *conn) confirmed(ctx context.Context, m sent) bus.Result {
	if m.err != nil {
		return bus.Result{Err: m.err}
	}
	select {
	case ack := <-m.future.Ok():
		return bus.Result{ID: m.stream.base + ack.Sequence}
	case err := <-m.future.Err():
		if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == streamMessageTooLarge {
			return bus.Result{Err: fmt.Errorf("%w: %w", bus.ErrTooLarge, err)}
		}
		return bus.Result{Err: c.call(ctx, "waiting for the confirmation", err)}
	case <-ctx.Done():
		return bus.Result{Err: fmt.Errorf("waiting for the confirmation: %w", ctx.Err())}
	case <-c.dead:
		return bus.Result{Err: c.failed()}
	}
}

// streamMessageTooLarge is the server's error for a body over the stream's
// max_msg_size (errors.json of nats-server).
const streamMessageTooLarge = 10054

// ttl is the header for a message that is kept for d, rounded up to what the
// header can say.
func ttl(s *stream, d time.Duration) nats.Header {
	if s.ttl {
		return nats.Header{ttlHeader: {strconv.FormatInt(roundUp(d, time.Second), 10)}}
	}
	return nats.Header{ownTTLHeader: {strconv.FormatInt(roundUp(d, time.Millisecond), 10)}}
}

func roundUp(d, unit time.Duration) int64 { return int64((d + unit - 1) / unit) }
