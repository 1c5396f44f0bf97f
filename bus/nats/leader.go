package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// In a cluster each stream and each consumer has a leader, the one server that
// answers for it. When that one dies the others agree on a new one within 4 to
// 9 seconds (times that nats-server has fixed); until then requests get no
// answer, or the answer that nobody is there. This is not the end of the
// connection, which is to another server: what is asked is asked again.
const (
	attempt   = 2 * time.Second        // of one request
	rest      = 200 * time.Millisecond // between two
	patience  = 12 * time.Second       // longer than an election; then the connection ends, and the Bus says so
	heartbeat = 2 * time.Second        // of a request for messages, by the consumer's leader
	unheard   = 5 * time.Second        // then the leader is taken for dead
)

const defaultCopies = 3 // of a stream in a cluster; with one server away it goes on

// copies are how many servers are to keep a stream.
func (c *conn) copies() int {
	switch {
	case c.replicas > 0:
		return c.replicas
	case c.cluster != "":
		return defaultCopies
	}
	return 1
}

// persist calls f, in a cluster again while there is nobody to answer.
func (c *conn) persist(ctx context.Context, f func(context.Context) error) error {
	if c.cluster == "" {
		return f(ctx)
	}
	for begin := time.Now(); ; {
		one, cancel := context.WithTimeout(ctx, attempt)
		err := f(one)
		cancel()
		if !leaderless(err) || time.Since(begin) > patience || !c.pause(ctx, rest) {
			return explainLeader(err)
		}
		if errors.Is(err, context.DeadlineExceeded) && !c.answers(ctx) {
			return err
		}
	}
}

// pause waits before something is asked again; false if it need not be.
func (c *conn) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-c.Dead():
	}
	return false
}

// answers reports whether the server that we are connected to still does. One
// that is frozen would be noticed by the pings, later.
func (c *conn) answers(ctx context.Context) bool {
	one, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	err := c.nc.FlushWithContext(one)
	if err != nil && ctx.Err() == nil {
		_ = c.Fail(fmt.Errorf("the server does not answer: %w", err))
	}
	return err == nil
}

// Errors of a server in a cluster that another attempt may mend.
const (
	noPeers   = 10005 // not as many servers as copies are there
	noCluster = 10074 // more than one copy, and the server is alone
	inProcess = 10158 // the message came before and is not yet confirmed
)

// leaderless reports whether err says that just now nobody can answer.
func leaderless(err error) bool {
	switch {
	case err == nil, errors.Is(err, nats.ErrConnectionClosed):
		return false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrNoResponders),
		errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrAsyncPublishTimeout):
		return true
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok || api.ErrorCode == jetstream.JSErrCodeJetStreamNotEnabled || api.ErrorCode == jetstream.JSErrCodeJetStreamNotEnabledForAccount {
		return false
	}
	return api.Code == 503 || api.ErrorCode == noPeers || api.ErrorCode == inProcess
}

func alone(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == noCluster
}

// explainLeader says what can be done about err where that is not plain.
func explainLeader(err error) error {
	api, ok := errors.AsType[*jetstream.APIError](err)
	switch {
	case err == nil:
		return nil
	case ok && api.ErrorCode == noPeers && strings.Contains(api.Description, "offline"):
		return fmt.Errorf("a server of the cluster is away, and as many copies as the key replicas says cannot be made: start it: %w", err)
	case ok && api.ErrorCode == noPeers:
		return fmt.Errorf("the cluster has fewer servers than the key replicas asks copies for (%d if it is not set): %w", defaultCopies, err)
	case leaderless(err):
		return fmt.Errorf("the cluster has no leader for it; more than half of its servers must run: %w", err)
	}
	return err
}
