package nats

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
)

const description = "cbsdmq" // of what is made here

// stream is what one connection knows of a stream.
type stream struct {
	js   jetstream.Stream
	ttl  bool   // the server drops messages past their TTL
	base uint64 // id of a message = base + its sequence

	moved atomic.Int64 // bytes since this connection put a keeper
}

// stream returns the stream of p, made if it is not there.
func (c *conn) stream(ctx context.Context, p place) (*stream, error) {
	c.mu.Lock()
	s := c.streams[p.stream]
	c.mu.Unlock()
	if s != nil {
		return s, nil
	}
	var js jetstream.Stream
	err := c.persist(ctx, func(ctx context.Context) (err error) {
		js, err = c.js.Stream(ctx, p.stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			js, err = c.js.CreateStream(ctx, p.config(c.copies()))
			if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || overlaps(err) {
				// Somebody was faster, or another stream has our subjects.
				if made, merr := c.js.Stream(ctx, p.stream); !errors.Is(merr, jetstream.ErrStreamNotFound) {
					js, err = made, merr
				}
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", p.stream, err)
	}
	return c.remember(p, c.bring(ctx, js)), nil
}

// subjectsOverlap is the server's error for subjects that another stream has; also
// to one of two who make the same stream at once (errors.json of nats-server).
const subjectsOverlap = 10065

func overlaps(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == subjectsOverlap
}

// bring gives a stream what it lacks: TTLs where it was made when the server was
// older, copies where it was made when there was no cluster. Where that is not
// possible or not permitted the stream is as good as it was.
func (c *conn) bring(ctx context.Context, js jetstream.Stream) jetstream.Stream {
	cfg := js.CachedInfo().Config
	ttl := c.version.hasTTL() && !cfg.AllowMsgTTL
	raise := c.cluster != "" && cfg.Description == description && cfg.Replicas < c.copies()
	if !ttl && !raise {
		return js
	}
	cfg.AllowMsgTTL = cfg.AllowMsgTTL || ttl
	if raise {
		cfg.Replicas = c.copies()
	}
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	updated, err := c.js.UpdateStream(ctx, cfg)
	if err != nil {
		return js
	}
	return updated
}

func (c *conn) remember(p place, js jetstream.Stream) *stream {
	info := js.CachedInfo()
	s := &stream{js: js, ttl: info.Config.AllowMsgTTL && c.version.hasTTL(), base: idBase(info.Created)}
	s.moved.Store(keepEvery)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams[p.stream] = s
	return s
}

// config is what a stream is created with. A server that does not know of
// TTLs ignores AllowMsgTTL.
func (p place) config(copies int) jetstream.StreamConfig {
	// A server that was told to take messages of more than 32 MB (max_payload)
	// stores them and cannot read them again: the stream would stand still.
	const maxMessage = 16 << 20
	cfg := jetstream.StreamConfig{
		Name:        p.stream,
		Description: description,
		Subjects:    []string{p.subject, p.keeper},
		Retention:   jetstream.WorkQueuePolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew, // where an administrator sets a limit: refuse, do not lose
		MaxMsgSize:  maxMessage,
		AllowMsgTTL: true,
		AllowRollup: true,
		Replicas:    copies,
	}
	if p.kind == bus.Mailbox {
		cfg.Subjects[0] = mailSubject + "*"
		cfg.MaxAge = MailboxMaxAge
	}
	return cfg
}

var idEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// idBase makes the ids of a stream differ from those of a stream of the same
// name that was deleted before this one was created.
func idBase(created time.Time) uint64 {
	return uint64(max(0, created.Sub(idEpoch).Milliseconds()))
}

// version is a server's: 2.9.10 is {2, 9}.
type version struct{ major, minor int }

func parseVersion(s string) (v version, err error) {
	_, err = fmt.Sscanf(s, "%d.%d", &v.major, &v.minor)
	return v, err
}

func (v version) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}

func (v version) hasTTL() bool   { return v.atLeast(2, 11) }
func (v version) hasClock() bool { return v.atLeast(2, 10) } // in the answers about streams
