package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cbsd/cbsdmq/bus"
)

const (
	// partitionBytes is how much of a partition is asked for at once.
	partitionBytes = 1 << 20

	// takenDelay is how long the sign that a reply was read may wait for others.
	takenDelay = 50 * time.Millisecond
)

// reader looks for mailboxes in those partitions of ReplyTopic that one broker
// leads. It begins with the oldest reply that is there, and hands nothing out
// before it has seen all that there was when it began: the sign that a reply was
// read comes after the reply.
type reader struct {
	k       *consumer
	link    *link
	leader  int32
	names   map[string]bool // of the mailboxes
	places  map[int32]*place
	topic   [16]byte
	changed chan struct{} // holds a token when run is to look around
	ended   chan struct{} // run has
	taken   []*kgo.Record // signs that are not sent yet, under k.mu
}

// place is how far a partition was read.
type place struct {
	next  int64
	end   int64      // of what there was in the beginning
	early []*message // found before end
}

// openReaders adds a reader for each broker that has some of the mailboxes.
func (k *consumer) openReaders(ctx context.Context, mailboxes []bus.Tube) error {
	readers, err := k.conn.readers(ctx, mailboxes)
	if err != nil {
		return err
	}
	for _, r := range readers {
		r.k, r.changed, r.ended = k, make(chan struct{}, 1), make(chan struct{})
		if r.link, err = k.conn.connect(ctx, true); err != nil {
			return err
		}
		if _, err := r.link.adm.Metadata(ctx, ReplyTopic); err != nil { // learn where the leader is
			k.conn.abandon(r.link)
			return err
		}
		k.add(r)
		go r.run()
	}
	return nil
}

// readers finds out where mailboxes are.
func (c *conn) readers(ctx context.Context, mailboxes []bus.Tube) (map[int32]*reader, error) {
	t, err := c.look(ctx, c.main, ReplyTopic, true)
	if err != nil {
		return nil, err
	}
	var first, last kadm.ListedOffsets
	err = c.patiently(ctx, func() error {
		if first, err = c.main.adm.ListStartOffsets(ctx, ReplyTopic); err != nil {
			return err
		}
		last, err = c.main.adm.ListEndOffsets(ctx, ReplyTopic)
		return errors.Join(err, first.Error(), last.Error())
	})
	if err != nil {
		return nil, err
	}
	readers := map[int32]*reader{}
	for _, m := range mailboxes {
		n := partitionOf(m.Name)
		p, ok := t.Partitions[n]
		if !ok {
			return nil, fmt.Errorf("the topic %s has %d partitions, it must have %d: remove it, it is made anew", ReplyTopic, len(t.Partitions), replyPartitions)
		}
		r := readers[p.Leader]
		if r == nil {
			r = &reader{leader: p.Leader, topic: t.ID, names: map[string]bool{}, places: map[int32]*place{}}
			readers[p.Leader] = r
		}
		begin, _ := first.Lookup(ReplyTopic, n)
		end, _ := last.Lookup(ReplyTopic, n)
		r.names[m.Name] = true
		r.places[n] = &place{next: begin.Offset, end: end.Offset}
	}
	return readers, nil
}

func (r *reader) look() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// accept takes the replies away, for all readers to come. The signs are records of
// the topic that we read ourselves, and are gathered: each that is sent by itself
// is a request, and the answer to one of ours.
func (r *reader) accept(ms []*message) {
	if len(r.taken) == 0 {
		time.AfterFunc(takenDelay, func() {
			r.k.mu.Lock()
			defer r.k.mu.Unlock()
			r.takeAway()
		})
	}
	for _, m := range ms {
		r.taken = append(r.taken, &kgo.Record{Topic: ReplyTopic, Partition: partitionOf(m.tube), Key: m.Key})
	}
}

// takeAway sends what accept has gathered. k.mu is held.
func (r *reader) takeAway() {
	for _, rec := range r.taken {
		r.k.conn.main.Produce(context.Background(), rec, nil)
	}
	r.taken = nil
}

// rest leaves m where it is: a mailbox has one reader.
func (r *reader) rest(*message) bool { return true }

// run reads while somebody receives.
func (r *reader) run() {
	defer close(r.ended)
	for {
		r.k.mu.Lock()
		closed := r.k.closed
		want, wait := r.k.wanted()
		r.k.mu.Unlock()
		switch {
		case closed || r.k.conn.Failed() != nil:
			return
		case want == 0:
			select {
			case <-r.changed:
			case <-r.k.conn.Dead():
			}
		default:
			if err := r.read(context.Background(), wait, r.found); err != nil {
				_ = r.k.conn.Fail(r.k.conn.reason(context.Background(), "reading mailboxes", err))
				return
			}
		}
	}
}

// read fetches once and calls found with what has come from each partition.
func (r *reader) read(ctx context.Context, wait time.Duration, found func(*place, []*kgo.Record)) error {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = int32(wait.Milliseconds()), 1, maxRead/2, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = ReplyTopic, r.topic
	for n, p := range r.places {
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = n, p.next, partitionBytes
		t.Partitions = append(t.Partitions, rp)
	}
	req.Topics = append(req.Topics, t)
	k, err := r.link.Broker(int(r.leader)).Request(ctx, req)
	if err != nil {
		return err
	}
	resp := k.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for i := range t.Partitions {
			rp := &t.Partitions[i]
			p := r.places[rp.Partition]
			if errors.Is(kerr.ErrorForCode(rp.ErrorCode), kerr.OffsetOutOfRange) && rp.LogStartOffset > p.next {
				p.next = rp.LogStartOffset // too old to be kept
				continue
			}
			fetched, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: ReplyTopic, Partition: rp.Partition, Offset: p.next}, rp, kgo.DefaultDecompressor(), nil)
			if fetched.Err != nil {
				return fetched.Err
			}
			p.next = max(p.next, next)
			found(p, fetched.Records)
		}
	}
	return nil
}

// found sorts records of a partition.
func (r *reader) found(p *place, rs []*kgo.Record) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	p.early = r.sort(p.early, rs)
	if p.next >= p.end {
		r.k.came(p.early)
		p.early = nil
	}
}

// sort adds to ms what is in the mailboxes, and removes what was read.
func (r *reader) sort(ms []*message, rs []*kgo.Record) []*message {
	for _, rec := range rs {
		name, id := mailboxOf(rec)
		switch {
		case !r.names[name], expired(rec):
		case rec.Value != nil:
			ms = append(ms, &message{Record: rec, source: r, tube: name, id: id})
		default:
			for i, m := range ms {
				if m.tube == name && m.id == id {
					ms = append(ms[:i], ms[i+1:]...)
					break
				}
			}
		}
	}
	return ms
}

// count returns how many replies wait in a mailbox.
func (c *conn) count(ctx context.Context, mailbox bus.Tube) (int, error) {
	readers, err := c.readers(ctx, []bus.Tube{mailbox})
	if err != nil {
		return 0, err
	}
	n := 0
	for _, r := range readers {
		r.link = c.main
		for _, p := range r.places {
			for p.next < p.end {
				before := p.next
				err := r.read(ctx, longPoll, func(p *place, rs []*kgo.Record) { p.early = r.sort(p.early, rs) })
				if err != nil {
					return 0, err
				}
				if p.next == before {
					break // the end is what is not committed yet
				}
			}
			n += len(p.early)
		}
	}
	return n, nil
}

func (r *reader) close(ctx context.Context) {
	if r.k.conn.Failed() == nil {
		r.k.mu.Lock()
		r.takeAway()
		r.k.mu.Unlock()
		_ = r.k.conn.main.Flush(ctx)
	}
	select {
	case <-r.ended:
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond): // nothing is lost by not waiting for it
	}
	r.k.conn.abandon(r.link)
}
