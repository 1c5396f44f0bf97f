package nats

import (
	"context"
	"crypto/rand"
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
	idHeader     = jetstream.MsgIDHeader

	// window is how many messages of one Put may be without confirmation.
	window = 256

	untakenMax = 5 // times that a server may have nobody who takes what is put
)

// sent is a message on its way.
type sent struct {
	place  place
	stream *stream
	msg    *nats.Msg // nil: not yet made
	future jetstream.PubAckFuture
	err    error // it was not sent
}

// Put publishes ms one after the other and collects the confirmations. Those of
// the embedded broker say that a message is stored, not that it is synced.
//
// In a cluster a confirmation is lost with the server that leads the stream.
// What is not confirmed is published again then, in its order and under the id
// that it had, by which the new leader knows whether it has it.
func (c *conn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	defer c.Guard(ctx)()
	results := make([]bus.Result, len(ms))
	out := make([]sent, len(ms))
	todo := make([]int, len(ms))
	for i := range todo {
		todo[i] = i
	}
	for tries := 0; ; tries++ {
		c.publish(ctx, ms, out, results, todo)
		todo = todo[:0]
		timeout := false
		for i, r := range results {
			if c.untaken(r.Err, tries) && ctx.Err() == nil {
				todo = append(todo, i)
				timeout = timeout || errors.Is(r.Err, jetstream.ErrAsyncPublishTimeout)
			}
		}
		if len(todo) == 0 || timeout && !c.answers(ctx) || !c.pause(ctx, rest) {
			break
		}
	}
	for i, r := range results {
		if r.Err != nil {
			results[i].Err = c.verdict(ctx, ms[i], r.Err)
		}
	}
	if c.grouped {
		c.settle(ctx, out, results)
	}
	return results
}

// untaken reports whether a message is put again that met err, after so many tries
// before.
func (c *conn) untaken(err error, tries int) bool {
	if c.cluster != "" {
		return leaderless(err)
	}
	// A stream is found a moment before it takes something, while somebody else makes
	// it. What nobody took is not stored.
	return tries < untakenMax && errors.Is(err, jetstream.ErrNoStreamResponse)
}

// publish sends those of ms that todo names and waits for their confirmations.
func (c *conn) publish(ctx context.Context, ms []bus.Message, out []sent, results []bus.Result, todo []int) {
	for n, i := range todo {
		if n >= window {
			j := todo[n-window]
			results[j] = c.confirmed(ctx, out[j])
		}
		c.send(ctx, ms[i], &out[i])
	}
	for _, i := range todo[max(0, len(todo)-window):] {
		results[i] = c.confirmed(ctx, out[i])
	}
}

// verdict is what the sender of m is told about err, which may be the end of the
// connection.
func (c *conn) verdict(ctx context.Context, m bus.Message, err error) error {
	if errors.Is(err, bus.ErrTooLarge) || errors.Is(err, bus.ErrBadTube) || errors.Is(err, bus.ErrClosed) {
		return err
	}
	return c.call(ctx, "putting to "+m.Tube.Name, explainLeader(err))
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

// send publishes m as out, which it makes unless that was sent before.
func (c *conn) send(ctx context.Context, m bus.Message, out *sent) {
	out.future, out.err = nil, c.Usable()
	if out.err == nil {
		out.err = ctx.Err()
	}
	if out.err == nil && out.msg == nil {
		out.err = c.make(ctx, m, out)
	}
	if out.err == nil {
		out.future, out.err = c.js.PublishMsgAsync(out.msg, jetstream.WithRetryAttempts(0))
	}
	if out.err == nil && out.place.kind == bus.Mailbox {
		c.keep(out.place, out.stream, len(m.Body))
	}
}

func (c *conn) make(ctx context.Context, m bus.Message, out *sent) (err error) {
	if out.place, err = placeOf(m.Tube); err != nil {
		return err
	}
	if len(m.Body) > c.maxBody() {
		return fmt.Errorf("%w: %d bytes, at most %d", bus.ErrTooLarge, len(m.Body), c.maxBody())
	}
	if out.stream, err = c.stream(ctx, out.place); err != nil {
		return err
	}
	msg := &nats.Msg{Subject: out.place.subject, Data: m.Body, Header: nats.Header{}}
	if m.TTL > 0 {
		ttl(msg.Header, out.stream, m.TTL)
	}
	if c.cluster != "" {
		// Of this Put, not of the job: the server would swallow a job that is
		// sent again with another reply address.
		msg.Header[idHeader] = []string{rand.Text()}
	}
	out.msg = msg
	return nil
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
			err = fmt.Errorf("%w: %w", bus.ErrTooLarge, err)
		}
		return bus.Result{Err: err}
	case <-ctx.Done():
		return bus.Result{Err: ctx.Err()}
	case <-c.Dead():
		return bus.Result{Err: c.Failed()}
	}
}

// streamMessageTooLarge is the server's error for a body over the stream's
// max_msg_size (errors.json of nats-server).
const streamMessageTooLarge = 10054

// ttl adds the header of a message that is kept for d, rounded up to what the
// header can say.
func ttl(h nats.Header, s *stream, d time.Duration) {
	if s.ttl {
		h[ttlHeader] = []string{strconv.FormatInt(roundUp(d, time.Second), 10)}
	} else {
		h[ownTTLHeader] = []string{strconv.FormatInt(roundUp(d, time.Millisecond), 10)}
	}
}

func roundUp(d, unit time.Duration) int64 { return int64((d + unit - 1) / unit) }
