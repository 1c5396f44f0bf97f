package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cbsd/cbsdmq/bus"
)

const (
	// segmentBytes is how much of what was read stays on the disk.
	segmentBytes = 16 << 20

	// lock is how long a message that was handed out is kept from others, unless
	// its consumer says that it still lives: what is on its way to one that has
	// just died comes again after this time.
	lockFor, lock = "share.record.lock.duration.ms", "15000" // the least that brokers take by default

	reset, earliest = "share.auto.offset.reset", "earliest"

	// limit is how often a message is handed out before Kafka drops it: 5 times by
	// default, and deliveries that a cut connection has swallowed count. Ten is the
	// most that brokers take. Those before 4.3 do not know it.
	limit, deliveries = "share.delivery.count.limit", "10"
)

// valid reports whether a topic of ours can have that name.
func valid(name string) bool {
	return bus.ValidTube(name) && !strings.Contains(name, ":") && !strings.HasPrefix(name, "__") &&
		name != "." && name != ".." && name != ReplyTopic
}

// topicOf is where the messages of t are.
func topicOf(t bus.Tube) (string, error) {
	if t.Kind == bus.Mailbox && bus.ValidTube(t.Name) {
		return ReplyTopic, nil
	}
	if t.Kind == bus.Queue && valid(t.Name) {
		return t.Name, nil
	}
	return "", fmt.Errorf("%w: %q", bus.ErrBadTube, t.Name)
}

// prepare makes the topic of t if it is not there, and remembers that it is.
func (c *conn) prepare(ctx context.Context, t bus.Tube) error {
	topic, err := topicOf(t)
	if err != nil {
		return err
	}
	if err := c.Usable(); err != nil {
		return err
	}
	c.mu.Lock()
	known := c.known[topic]
	c.mu.Unlock()
	if known {
		return nil
	}
	if _, err := c.look(ctx, c.main, topic, true); err != nil {
		return c.reason(ctx, "looking for the topic "+topic, err)
	}
	c.mu.Lock()
	c.known[topic] = true
	c.mu.Unlock()
	return nil
}

// look finds a topic whose partitions have leaders; l knows then where they are. One that is not there is made,
// or the error is kerr.UnknownTopicOrPartition.
func (c *conn) look(ctx context.Context, l *link, topic string, create bool) (found kadm.TopicDetail, err error) {
	err = c.patiently(ctx, func() error {
		m, err := l.adm.Metadata(ctx, topic)
		if err != nil {
			return err
		}
		found = m.Topics[topic]
		if errors.Is(found.Err, kerr.UnknownTopicOrPartition) {
			if !create {
				return fmt.Errorf("%w", errNoTopic)
			}
			if err := c.create(ctx, topic); err != nil {
				return err
			}
			return kerr.LeaderNotAvailable // look again
		}
		if found.Err != nil {
			return found.Err
		}
		for _, p := range found.Partitions {
			if p.Err != nil {
				return p.Err
			}
		}
		return nil
	})
	return found, err
}

var errNoTopic = errors.New("there is no such topic")

func (c *conn) create(ctx context.Context, topic string) error {
	partitions, configs := int32(1), map[string]string{
		"cleanup.policy":         "delete",
		"retention.ms":           "-1",
		"retention.bytes":        "-1",
		"segment.bytes":          strconv.Itoa(segmentBytes),
		"message.timestamp.type": "LogAppendTime",
	}
	if topic == ReplyTopic {
		partitions = replyPartitions
		configs["cleanup.policy"] = "compact,delete"
		configs["retention.ms"] = strconv.FormatInt(MailboxMaxAge.Milliseconds(), 10)
		configs["segment.bytes"] = strconv.Itoa(segmentBytes / 4)
		configs["segment.ms"] = "600000" // compaction begins behind the segment in use
		configs["min.cleanable.dirty.ratio"] = "0.1"
		configs["delete.retention.ms"] = "600000"
	}
	replicas := int16(-1)
	if n := c.driver.cfg.Replicas; n > 0 {
		replicas = int16(n)
		configs["min.insync.replicas"] = strconv.Itoa(n/2 + 1)
	}
	if c.driver.cfg.Replicas < 2 {
		configs["flush.messages"] = "1" // no other copy outlives a power failure
	}
	values := map[string]*string{}
	for k, v := range configs {
		values[k] = &v
	}
	r, err := c.main.adm.CreateTopic(ctx, partitions, replicas, values, topic)
	switch {
	case err == nil, errors.Is(err, kerr.TopicAlreadyExists):
		return nil
	case errors.Is(err, kerr.InvalidReplicationFactor) && (c.driver.cfg.Replicas == 0 || strings.Contains(r.ErrMessage, "fenced")):
		// A broker that has just started, or was busy, is not one of them yet.
		return fmt.Errorf("making the topic %s: %s: %w", topic, r.ErrMessage, kerr.LeaderNotAvailable)
	case errors.Is(err, kerr.InvalidReplicationFactor):
		return &bus.Permanent{Err: fmt.Errorf("kafka.replicas: %d copies of %s: %s", c.driver.cfg.Replicas, topic, r.ErrMessage)}
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return &bus.Permanent{Err: fmt.Errorf("%s may not make the topic %s: let it, or make the topic: %w", c.who(), topic, err)}
	case r.ErrMessage != "" && !kerr.IsRetriable(err):
		return fmt.Errorf("making the topic %s: %s: %w", topic, r.ErrMessage, err)
	}
	return err
}

// enrol sees to it that the group of a tube begins with the first message of its
// topic. Left alone it would begin with the next one.
func (c *conn) enrol(ctx context.Context, tube string) error {
	return c.patiently(ctx, func() error {
		begins, err := c.setting(ctx, tube, reset)
		if err != nil {
			return fmt.Errorf("the share group %s must have share.auto.offset.reset=earliest: %w", tube, err)
		}
		if begins == earliest {
			return nil
		}
		o, err := c.place(ctx, tube)
		if err == nil && o.StartOffset < 0 { // for now: brokers hear of the setting in a while
			err = c.rewind(ctx, tube)
		}
		if err != nil {
			return err
		}
		settings := map[string]string{reset: earliest, lockFor: lock, limit: deliveries}
		err = c.configure(ctx, tube, settings)
		for _, key := range []string{limit, lockFor} {
			if !errors.Is(err, kerr.InvalidConfig) {
				break
			}
			delete(settings, key) // it does not know it, or not allow so short a lock
			err = c.configure(ctx, tube, settings)
		}
		return err
	})
}

// rewind puts the group of a tube to the beginning, unless it is at work.
func (c *conn) rewind(ctx context.Context, tube string) error {
	offsets := kadm.Offsets{}
	offsets.AddOffset(tube, 0, 0, -1)
	rs, err := c.main.adm.AlterShareGroupOffsets(ctx, tube, offsets)
	if err == nil {
		err = rs[tube][0]
	}
	if errors.Is(err, kerr.NonEmptyGroup) {
		return nil
	}
	return err
}

// place is how far the group of a tube has come; -1 if it has not begun.
func (c *conn) place(ctx context.Context, tube string) (kadm.ShareOffset, error) {
	none := kadm.ShareOffset{StartOffset: -1, Lag: -1}
	all, err := c.main.adm.DescribeShareGroupOffsets(ctx, tube)
	if err == nil {
		err = all[tube].Err
	}
	if errors.Is(err, kerr.GroupIDNotFound) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	o, ok := all[tube].Offsets.Lookup(tube, 0)
	if !ok {
		return none, nil
	}
	if o.Err != nil {
		return none, o.Err
	}
	return o, nil
}

// setting is a value of the group of a tube, "" where it has none.
func (c *conn) setting(ctx context.Context, tube, key string) (string, error) {
	d := kmsg.NewPtrDescribeConfigsRequest()
	dr := kmsg.NewDescribeConfigsRequestResource()
	dr.ResourceType, dr.ResourceName = kmsg.ConfigResourceTypeGroupConfig, tube
	d.Resources = append(d.Resources, dr)
	ds, err := d.RequestWith(ctx, c.main)
	if err != nil {
		return "", err
	}
	for _, r := range ds.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return "", err
		}
		for _, e := range r.Configs {
			if e.Name == key && e.Value != nil {
				return *e.Value, nil
			}
		}
	}
	return "", nil
}

func (c *conn) configure(ctx context.Context, tube string, settings map[string]string) error {
	a := kmsg.NewPtrIncrementalAlterConfigsRequest()
	ar := kmsg.NewIncrementalAlterConfigsRequestResource()
	ar.ResourceType, ar.ResourceName = kmsg.ConfigResourceTypeGroupConfig, tube
	for key, value := range settings {
		ac := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		ac.Name, ac.Value = key, &value
		ar.Configs = append(ar.Configs, ac)
	}
	a.Resources = append(a.Resources, ar)
	as, err := a.RequestWith(ctx, c.main)
	if err != nil {
		return err
	}
	for _, r := range as.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return err
		}
	}
	return nil
}
