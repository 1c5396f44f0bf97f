package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
)

// Expire is for servers without TTLs; where the server sees to them it does
// nothing. A message that was handed out while a consumer is there is not
// unread.
func (c *conn) Expire(ctx context.Context, tube string, id uint64, age time.Duration) error {
	defer c.guard(ctx)()
	if err := c.usable(); err != nil {
		return err
	}
	if c.version.hasTTL() {
		return nil
	}
	for _, kind := range []bus.Kind{bus.Mailbox, bus.Queue} {
		p, err := placeOf(bus.Tube{Name: tube, Kind: kind})
		if err != nil {
			return err
		}
		if err := c.expire(ctx, p, id, age); err != nil {
			return c.call(ctx, "expiring a message of "+tube, err)
		}
	}
	return nil
}

func (c *conn) expire(ctx context.Context, p place, id uint64, age time.Duration) error {
	js, err := c.js.Stream(ctx, p.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	s := c.remember(p, js)
	if id <= s.base {
		return nil
	}
	m, err := js.GetMsg(ctx, id-s.base)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	now, err := c.serverTime(ctx)
	if err != nil {
		return err
	}
	if m.Subject != p.subject || now.Sub(m.Time) < age {
		return nil
	}
	consumer, err := js.Consumer(ctx, p.consumer)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
	case err != nil:
		return err
	case m.Sequence <= consumer.CachedInfo().Delivered.Stream:
		return nil
	}
	err = js.DeleteMsg(ctx, m.Sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	return err
}

// serverTime is the server's clock, which need not agree with ours. Before
// 2.10 the server tells it only as the time when a consumer was created.
func (c *conn) serverTime(ctx context.Context) (time.Time, error) {
	p := place{kind: bus.Mailbox, stream: mailStream}
	s, err := c.stream(ctx, p)
	if err != nil {
		return time.Time{}, err
	}
	if c.version.hasClock() {
		info, err := s.js.Info(ctx)
		if err != nil {
			return time.Time{}, err
		}
		return info.TimeStamp, nil
	}
	probe, err := s.js.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Name:              "t_" + rand.Text(),
		FilterSubject:     mailSubject + "=" + rand.Text(), // no tube's
		AckPolicy:         jetstream.AckExplicitPolicy,
		MemoryStorage:     true,
		InactiveThreshold: time.Second,
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("asking for the time: %w", err)
	}
	info := probe.CachedInfo()
	return info.Created, s.js.DeleteConsumer(ctx, info.Name)
}
