package kafka

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cbsd/cbsdmq/bus"
)

const (
	expiresHeader = "expires"
	putHeader     = "put" // of a copy: when the message was first put, in milliseconds

	// replyPartitions share the work of those who look for their mailboxes.
	replyPartitions = 8

	keySeparator = "\x00" // between mailbox and id
)

// newID is a message's number. It does not come from the broker: a topic that was
// removed and made again counts from the beginning.
func newID() uint64 { return rand.Uint64()>>1 | 1 }

// record is m on its way to the broker.
func record(m bus.Message, id uint64) *kgo.Record {
	r := &kgo.Record{Topic: m.Tube.Name, Key: strconv.AppendUint(nil, id, 10), Value: m.Body}
	if m.Tube.Kind == bus.Mailbox {
		r.Topic, r.Partition, r.Key = ReplyTopic, partitionOf(m.Tube.Name), mailboxKey(m.Tube.Name, id)
	}
	if r.Value == nil {
		r.Value = []byte{}
	}
	if m.TTL > 0 {
		r.Headers = []kgo.RecordHeader{{Key: expiresHeader, Value: millis(time.Now().Add(m.TTL))}}
	}
	return r
}

// again is a copy of r with all that is known of it.
func again(tube string, id uint64, r *kgo.Record) *kgo.Record {
	c := &kgo.Record{Topic: tube, Key: strconv.AppendUint(nil, id, 10), Value: r.Value}
	for _, h := range r.Headers {
		if h.Key != putHeader {
			c.Headers = append(c.Headers, h)
		}
	}
	c.Headers = append(c.Headers, kgo.RecordHeader{Key: putHeader, Value: millis(putAt(r))})
	if c.Value == nil {
		c.Value = []byte{}
	}
	return c
}

// partitionOf is where a mailbox is in ReplyTopic: FNV-1a of its name.
func partitionOf(mailbox string) int32 {
	h := fnv.New32a()
	h.Write([]byte(mailbox))
	return int32(h.Sum32() % replyPartitions)
}

func mailboxKey(mailbox string, id uint64) []byte {
	return strconv.AppendUint([]byte(mailbox+keySeparator), id, 10)
}

// mailboxOf splits the key of a reply. It returns "" for a record that is none.
func mailboxOf(r *kgo.Record) (mailbox string, id uint64) {
	mailbox, number, _ := strings.Cut(string(r.Key), keySeparator)
	id, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return "", 0
	}
	return mailbox, id
}

// idOf is the number of a message of a queue. One that was not put by a bus has
// that of its place in this incarnation of the topic.
func idOf(r *kgo.Record, topic [16]byte) uint64 {
	if id, err := strconv.ParseUint(string(r.Key), 10, 64); err == nil && id > 0 {
		return id
	}
	const places = 40 // bits
	return uint64(binary.BigEndian.Uint32(topic[:])>>9)<<places | (uint64(r.Offset)+1)&(1<<places-1)
}

// putAt is when a message was put, by the broker's clock.
func putAt(r *kgo.Record) time.Time {
	if t, ok := header(r, putHeader); ok {
		return t
	}
	return r.Timestamp
}

// expired reports whether the TTL of a message has ended.
func expired(r *kgo.Record) bool {
	t, ok := header(r, expiresHeader)
	return ok && !time.Now().Before(t)
}

func header(r *kgo.Record, key string) (time.Time, bool) {
	for _, h := range r.Headers {
		if h.Key == key {
			ms, err := strconv.ParseInt(string(h.Value), 10, 64)
			return time.UnixMilli(ms), err == nil
		}
	}
	return time.Time{}, false
}

func millis(t time.Time) []byte { return strconv.AppendInt(nil, t.UnixMilli(), 10) }
