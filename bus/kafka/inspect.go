package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/cbsd/cbsdmq/bus"
)

const advice = "confirmed messages survive a crash of the broker; with one copy of each they survive a power failure only where the topic has flush.messages=1, as a topic made by cbsdmq does (or the broker log.flush.interval.messages=1): `kafka-configs.sh --alter --topic TUBE --add-config flush.messages=1`"

// Inspect creates nothing.
func (c *conn) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	if err := c.usable(); err != nil {
		return bus.Info{}, err
	}
	if _, err := topicOf(t); err != nil {
		return bus.Info{}, err
	}
	info := bus.Info{Durable: true, MaxBody: maxBody, Consumers: -1}
	err := c.patiently(ctx, func() error { return c.inspect(ctx, t, &info) })
	if errors.Is(err, errNoTopic) {
		info.Consumers, err = 0, nil
	}
	if err != nil {
		return bus.Info{}, c.reason(ctx, "inspecting "+t.Name, err)
	}
	return info, nil
}

func (c *conn) inspect(ctx context.Context, t bus.Tube, info *bus.Info) error {
	v, err := versionsRequest().RequestWith(ctx, c.main)
	if err != nil {
		return err
	}
	info.Server = "Apache Kafka " + kversion.FromApiVersionsResponse(v).VersionGuess()
	topic, _ := topicOf(t)
	found, err := c.look(ctx, topic, false)
	if err != nil {
		return err
	}
	if t.Kind == bus.Mailbox {
		info.Ready, err = c.count(ctx, t)
		return err
	}
	if len(found.Partitions[0].Replicas) < 2 {
		configs, err := c.main.adm.DescribeTopicConfigs(ctx, topic)
		if err != nil {
			return err
		}
		for _, r := range configs {
			for _, e := range r.Configs {
				if e.Key == "flush.messages" && e.MaybeValue() != "1" {
					info.Advice = advice
				}
			}
		}
	}
	if info.Ready, err = c.lag(ctx, t.Name); err != nil {
		return err
	}
	groups, err := c.main.adm.DescribeShareGroups(ctx, t.Name)
	if err == nil {
		err = groups[t.Name].Err
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return err
	}
	info.Consumers = len(groups[t.Name].Members)
	return nil
}

// lag is how many messages of a tube are not done with: those that consumers have
// at this moment are among them.
func (c *conn) lag(ctx context.Context, tube string) (int, error) {
	o, err := c.place(ctx, tube)
	if err != nil {
		return 0, err
	}
	if o.StartOffset >= 0 && o.Lag >= 0 {
		return int(o.Lag), nil
	}
	first, err := c.main.adm.ListStartOffsets(ctx, tube)
	if err != nil {
		return 0, err
	}
	last, err := c.main.adm.ListEndOffsets(ctx, tube)
	if err != nil {
		return 0, err
	}
	begin, _ := first.Lookup(tube, 0)
	end, _ := last.Lookup(tube, 0)
	return int(end.Offset - max(begin.Offset, o.StartOffset)), errors.Join(begin.Err, end.Err)
}
