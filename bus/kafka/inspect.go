package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/cbsd/cbsdmq/bus"
)

// Inspect creates nothing.
func (c *conn) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	if err := c.Usable(); err != nil {
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
	found, err := c.look(ctx, c.main, topic, false)
	if err != nil {
		return err
	}
	if t.Kind == bus.Mailbox {
		info.Ready, err = c.count(ctx, t)
		return err
	}
	if err := c.durable(ctx, topic, len(found.Partitions[0].Replicas), info); err != nil {
		return err
	}
	info.Ready, err = c.lag(ctx, t.Name)
	if errors.Is(err, kerr.GroupAuthorizationFailed) { // a client's user needs no right to it
		info.Ready = -1
		if info.Advice == "" {
			info.Advice = fmt.Sprintf("%s may not see the share group %s: an agent's has to read, describe and configure it, a client's need not", c.who(), t.Name)
		}
		return nil
	}
	if err != nil {
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

// durable says what becomes of the messages of a topic when a broker fails. They
// are confirmed when all copies that are in step have them, in their memory.
func (c *conn) durable(ctx context.Context, topic string, copies int, info *bus.Info) error {
	resources, err := c.main.adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return err
	}
	configs := map[string]string{}
	for _, r := range resources {
		for _, e := range r.Configs {
			configs[e.Key] = e.MaybeValue()
		}
	}
	alter := func(config string) string {
		return fmt.Sprintf("`kafka-configs.sh --bootstrap-server %s --alter --topic %s --add-config %s`", c.addr, topic, config)
	}
	switch {
	case len(configs) == 0: // not for us to see
	case configs["unclean.leader.election.enable"] == "true":
		info.Durable = false
		info.Advice = "a copy that lacks confirmed messages may come to lead: " + alter("unclean.leader.election.enable=false")
	case configs["flush.messages"] == "1":
	case copies < 2:
		info.Advice = "confirmed messages survive a crash of the broker, but not a power failure: there is one copy of each, and it is not synced: " +
			alter("flush.messages=1")
	case configs["min.insync.replicas"] == "0", configs["min.insync.replicas"] == "1":
		info.Advice = fmt.Sprintf("there are %d copies of each message, but one is enough to confirm it, which does not survive a power failure there: ", copies) +
			alter("min.insync.replicas=2")
	}
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
