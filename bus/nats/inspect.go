package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
)

// presence is how long Inspect waits for the answers of a tube's consumers.
const presence = 200 * time.Millisecond

const adviceSync = "confirmed messages survive a crash of the server; to have them survive a power failure too, write sync_interval: always into the jetstream block of its configuration (without it the server syncs every 2 minutes)"

// Inspect creates nothing: a tube that nobody has used is empty.
func (c *conn) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	defer c.Guard(ctx)()
	if err := c.Usable(); err != nil {
		return bus.Info{}, err
	}
	p, err := placeOf(t)
	if err != nil {
		return bus.Info{}, err
	}
	info := bus.Info{
		Server:   "nats-server " + c.nc.ConnectedServerVersion(),
		Instance: c.nc.ConnectedServerId(),
		Durable:  true,
		MaxBody:  c.maxBody(),
	}
	if !c.embedded { // a client cannot see whether it is so already
		info.Advice = adviceSync
	}
	if err := c.persist(ctx, func(ctx context.Context) error { return c.count(ctx, p, &info) }); err != nil {
		return bus.Info{}, c.call(ctx, "inspecting "+t.Name, err)
	}
	if info.Consumers, err = c.present(ctx, p); err != nil {
		return bus.Info{}, c.call(ctx, "inspecting "+t.Name, err)
	}
	return info, nil
}

// count fills in what the stream says.
func (c *conn) count(ctx context.Context, p place, info *bus.Info) error {
	if c.cluster != "" {
		info.Instance = "" // which of its servers this is says nothing about the stream
	}
	s, err := c.js.Stream(ctx, p.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	si, err := s.Info(ctx, jetstream.WithSubjectFilter(p.subject))
	if err != nil {
		return err
	}
	if si.Config.Storage != jetstream.FileStorage {
		info.Durable = false
		info.Advice = fmt.Sprintf("the stream %s is kept in memory, so a restart of the server loses what is queued: make it anew with file storage", p.stream)
	}
	if c.cluster != "" {
		info.Instance = c.cluster + " " + si.Created.UTC().Format(time.RFC3339Nano)
	}
	info.Ready = int(si.State.Subjects[p.subject])
	consumer, err := s.Consumer(ctx, p.consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	info.Ready = max(0, info.Ready-consumer.CachedInfo().NumAckPending)
	return nil
}

// present asks the consumers of p to answer, and counts. The server itself
// knows only those that wait for a message at this moment.
func (c *conn) present(ctx context.Context, p place) (int, error) {
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return 0, err
	}
	defer func() { _ = sub.Unsubscribe() }() // it ends with the connection too
	if err := c.nc.PublishRequest(p.here(), inbox, nil); err != nil {
		return 0, err
	}
	wait, cancel := context.WithTimeout(ctx, presence)
	defer cancel()
	for n := 0; ; n++ {
		m, err := sub.NextMsgWithContext(wait)
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			return n, nil
		case err == nil:
			if code, _ := status(m); code == "503" {
				return n, nil
			}
		case ctx.Err() == nil && wait.Err() != nil:
			return n, nil
		default:
			return 0, err
		}
	}
}
