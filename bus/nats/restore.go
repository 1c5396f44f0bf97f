package nats

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// makeConsumer makes the server's consumer of a place unless it is there.
func (c *conn) makeConsumer(ctx context.Context, s *stream, at place) error {
	const tries, deletion = 50, 10 * time.Millisecond
	for try := 1; ; try++ {
		err := c.persist(ctx, func(ctx context.Context) error {
			_, err := s.js.CreateConsumer(ctx, serverConsumer(at))
			return err
		})
		switch {
		case errors.Is(err, jetstream.ErrConsumerExists): // as an administrator wants it
			return nil
		case errors.Is(err, jetstream.ErrConsumerDoesNotExist) && try < tries && c.pause(ctx, deletion): // the one before is being deleted
			continue
		}
		return err
	}
}

// restore makes the server's consumers again where it has none any more. In a
// cluster that may also mean that it has no leader just now, so it is not asked
// at once.
func (k *consumer) restore(ctx context.Context) error {
	for _, p := range k.pulls { // they do not change after Consume
		k.mu.Lock()
		gone := p.gone
		k.mu.Unlock()
		if gone.IsZero() || k.conn.cluster != "" && time.Since(gone) < rest && !k.conn.pause(ctx, rest) {
			continue
		}
		if err := k.conn.makeConsumer(ctx, p.stream, p.place); err != nil {
			return err
		}
		k.mu.Lock()
		p.gone = time.Time{}
		k.mu.Unlock()
	}
	return nil
}
