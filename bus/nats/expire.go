package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
)

// Expire is for servers without TTLs; where the server sees to them it does
// nothing. A message that was handed out while a consumer is there is not
// unread.
func (c *conn) Expire(ctx context.Context, tube string, id uint64, age time.Duration) error {
	defer c.Guard(ctx)()
	if err := c.Usable(); err != nil {
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

// Sweep looks at mailboxes only. It is for servers without TTLs, as Expire is.
func (c *conn) Sweep(ctx context.Context, match func(tube string) bool, age time.Duration) (removed int, err error) {
	defer c.Guard(ctx)()
	if err := c.Usable(); err != nil {
		return 0, err
	}
	if c.version.hasTTL() {
		return 0, nil
	}
	if removed, err = c.sweep(ctx, match, age); err != nil {
		return removed, c.call(ctx, "sweeping mailboxes", err)
	}
	return removed, nil
}

func (c *conn) sweep(ctx context.Context, match func(tube string) bool, age time.Duration) (removed int, err error) {
	now, err := c.serverTime(ctx) // there is a stream of mailboxes from now on
	if err != nil {
		return 0, err
	}
	js, err := c.js.Stream(ctx, mailStream)
	if err != nil {
		return 0, err
	}
	info, err := js.Info(ctx, jetstream.WithSubjectFilter(mailSubject+"*"))
	if err != nil {
		return 0, err
	}
	for subject := range info.State.Subjects {
		k := strings.TrimPrefix(subject, mailSubject)
		if tube, ok := tubeOf(k); !ok || !match(tube) {
			continue
		}
		if _, err := js.Consumer(ctx, mailConsumer+k); !errors.Is(err, jetstream.ErrConsumerNotFound) {
			if err != nil {
				return removed, err
			}
			continue
		}
		n, err := dropOld(ctx, js, subject, now.Add(-age))
		if removed += n; err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// dropOld removes the messages of subject that were put before t.
func dropOld(ctx context.Context, js jetstream.Stream, subject string, t time.Time) (n int, err error) {
	for seq := uint64(1); ; n++ {
		m, err := js.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Time.After(t) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if err := js.DeleteMsg(ctx, m.Sequence); err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return n, err
		}
		seq = m.Sequence + 1
	}
}

// serverTime is the server's clock, which need not agree with ours. Before
// 2.10 the server tells it only as the time when a consumer was created.
func (c *conn) serverTime(ctx context.Context) (time.Time, error) {
	p, err := placeOf(bus.Tube{Name: "time", Kind: bus.Mailbox}) // for the stream
	if err != nil {
		return time.Time{}, err
	}
	s, err := c.stream(ctx, p)
	if err != nil {
		return time.Time{}, err
	}
	if c.version.hasClock() {
		var info *jetstream.StreamInfo
		err := c.persist(ctx, func(ctx context.Context) (err error) {
			info, err = s.js.Info(ctx)
			return err
		})
		if err != nil {
			return time.Time{}, err
		}
		return info.TimeStamp, nil
	}
	var probe jetstream.Consumer
	err = c.persist(ctx, func(ctx context.Context) (err error) {
		probe, err = s.js.CreateConsumer(ctx, jetstream.ConsumerConfig{
			Name:              "t_" + rand.Text(),
			FilterSubject:     mailSubject + "=" + rand.Text(), // no tube's
			AckPolicy:         jetstream.AckExplicitPolicy,
			MemoryStorage:     true,
			InactiveThreshold: time.Second,
		})
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("asking for the time: %w", err)
	}
	info := probe.CachedInfo()
	return info.Created, s.js.DeleteConsumer(ctx, info.Name)
}
