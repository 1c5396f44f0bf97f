package rabbitmq

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

// Ack tells the broker, and does not wait for its word.
func (k *consumer) Ack(ctx context.Context, ds ...bus.Delivery) error {
	defer k.conn.Guard(ctx)()
	return k.settle(ds, func(tags []uint64) error {
		if highest := slices.Max(tags); len(tags) > 1 && k.allUpTo(highest) {
			return k.ch.Ack(highest, true)
		}
		return k.each(tags, func(tag uint64) error { return k.ch.Ack(tag, false) })
	})
}

// allUpTo reports whether nothing is outstanding that has a lower tag. Of several
// tubes something may be on its way to us that was sent before. k.mu is held.
func (k *consumer) allUpTo(tag uint64) bool {
	if len(k.o.Tubes) > 1 || len(k.back)+len(k.later) > 0 || len(k.ready) > 0 && k.ready[0].DeliveryTag < tag {
		return false
	}
	for t := range k.unacked {
		if t < tag {
			return false
		}
	}
	return true
}

// each calls f, which sends a word, for all tags.
func (k *consumer) each(tags []uint64, f func(tag uint64) error) (err error) {
	sent := k.conn.Together(func() {
		for _, t := range tags {
			if err == nil {
				err = f(t)
			}
		}
	})
	if sent != nil {
		return k.conn.Fail(fmt.Errorf("connection to RabbitMQ lost: %w", sent))
	}
	return err
}

// Release has the messages delivered again. All that came behind them goes back
// first, with the subscription, so that they keep their place. RabbitMQ knows no
// delay: they are kept here until it has passed, and given back at once if the
// connection ends.
func (k *consumer) Release(ctx context.Context, delay time.Duration, ds ...bus.Delivery) error {
	defer k.conn.Guard(ctx)()
	return k.settle(ds, func(tags []uint64) error {
		if delay <= 0 {
			k.back = append(k.back, tags...)
			switch {
			case k.streams == 0:
				k.giveBack()
			case k.on:
				k.on = false
				go k.unsubscribe(k.tags(), k.window)
			}
			return nil
		}
		var t *time.Timer
		t = time.AfterFunc(delay, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			delete(k.later, t)
			_ = k.nack(tags)
		})
		k.later[t] = struct{}{}
		return nil
	})
}

// nack is for settle. k.mu is held.
func (k *consumer) nack(tags []uint64) error {
	return k.each(tags, func(tag uint64) error { return k.ch.Nack(tag, false, true) })
}

// settle calls f with the tags of ds, which are ours no longer.
func (k *consumer) settle(ds []bus.Delivery, f func(tags []uint64) error) error {
	if err := k.conn.Failed(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return bus.ErrClosed
	}
	var gone error
	tags := make([]uint64, 0, len(ds))
	for _, d := range ds {
		r, ok := d.Ref.(*ref)
		if !ok || r.consumer != k || !k.unacked[r.tag] {
			gone = bus.ErrGone
			continue
		}
		delete(k.unacked, r.tag)
		tags = append(tags, r.tag)
	}
	if len(tags) == 0 {
		return gone
	}
	if err := f(tags); err != nil {
		return k.conn.Fail(fmt.Errorf("acknowledging: %w", err))
	}
	return gone
}

// Age is by the clocks of sender and receiver: RabbitMQ tells no time.
func (k *consumer) Age(_ context.Context, d bus.Delivery) (time.Duration, error) {
	r, ok := d.Ref.(*ref)
	if !ok || r.consumer != k {
		return 0, bus.ErrGone
	}
	if err := k.conn.Failed(); err != nil {
		return 0, err
	}
	return max(0, time.Since(r.put)), nil
}
