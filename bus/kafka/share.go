package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Words to the broker about a message that it has handed out.
const (
	ackGap     int8 = 0 // there is no message at that place
	ackAccept  int8 = 1
	ackRelease int8 = 2
	ackRenew   int8 = 4
)

const (
	// worn is how often a message may come before it is put anew: Kafka drops
	// what it has handed out 5 times.
	worn = 3

	// patience is how many answers in a row may say that the broker cannot
	// answer yet, each after up to longPoll.
	patience = 8

	leaveTimeout = time.Second // of a consumer that has failed

	// cuts is how many beats cut the topic after something was accepted: the group
	// stores that a while later.
	cuts = 2
)

// share reads a topic as a member of its share group. All requests but the
// heartbeats are run's, one at a time. The library's own consumer of share groups
// is not used: it takes a message for done when the next one is asked for.
type share struct {
	k       *consumer
	tube    string
	topic   [16]byte
	leader  int32
	link    *link
	member  string
	changed chan struct{} // holds a token when run is to look around
	ended   chan struct{} // run has

	// Under k.mu.
	acks  map[int64]int8     // to be told to the broker, by offset
	out   map[int64]struct{} // handed out to us and not settled
	uncut int                // beats that are to cut the topic, as something was accepted

	// Of run.
	epoch   int32     // of the session at the broker; 0 = there is none
	asked   time.Time // when the broker was last asked for something
	renewed time.Time
	lock    time.Duration // how long out is ours
	refused int           // answers in a row

	memberEpoch int32 // of the goroutine that beats, and of join before it
	beat        time.Duration
}

func (k *consumer) openShare(ctx context.Context, tube string) (*share, error) {
	c := k.conn
	if err := c.enrol(ctx, tube); err != nil {
		return nil, err
	}
	l, err := c.connect(ctx, true)
	if err != nil {
		return nil, err
	}
	t, err := c.look(ctx, l, tube, true)
	if err != nil {
		c.abandon(l)
		return nil, err
	}
	s := &share{
		k: k, tube: tube, topic: t.ID, leader: t.Partitions[0].Leader, link: l, member: memberID(),
		changed: make(chan struct{}, 1), ended: make(chan struct{}),
		acks: map[int64]int8{}, out: map[int64]struct{}{},
	}
	// Every member may read the only partition, so the group's assignment says
	// nothing new and is not waited for.
	if err = c.patiently(ctx, func() error { return s.heartbeat(ctx) }); err != nil {
		c.abandon(l)
		return nil, fmt.Errorf("joining the share group: %w", err)
	}
	go s.run()
	go s.stayAlive()
	return s, nil
}

func (s *share) look() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *share) accept(ms []*message) {
	s.uncut = cuts
	for _, m := range ms {
		s.say(m, ackAccept)
	}
}

func (s *share) rest(m *message) bool {
	s.say(m, ackRelease)
	return false
}

func (s *share) say(m *message, word int8) {
	delete(s.out, m.Offset)
	s.acks[m.Offset] = word
	s.look()
}

// run talks to the broker until the consumer is closed or the conn has ended.
func (s *share) run() {
	defer close(s.ended)
	for {
		s.k.mu.Lock()
		closed := s.k.closed
		want, wait := s.k.wanted()
		pending := len(s.acks) > 0
		held := len(s.out) > 0
		s.k.mu.Unlock()
		due := s.asked.Add(idleTimeout / 2) // for the session's sake
		if held {
			due = s.renewed.Add(s.lock / 3)
		}
		late := s.epoch > 0 && !time.Now().Before(due)
		var err error
		switch {
		case closed || s.k.conn.Failed() != nil:
			return
		case late && (held || want == 0) || pending && (want == 0 || s.epoch == 0):
			err = s.acknowledge(context.Background(), late && held, false)
		case want > 0:
			err = s.fetch(want, wait)
		default:
			s.wait(due)
		}
		if err != nil {
			if s.k.conn.Failed() == nil { // not for want of a connection
				ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
				s.leave(ctx)
				cancel()
			}
			_ = s.k.conn.Fail(s.k.conn.reason(context.Background(), "consuming "+s.tube, err))
			return
		}
	}
}

// wait returns when there may be something to do, at due if there is a session.
func (s *share) wait(due time.Time) {
	var late <-chan time.Time
	if s.epoch > 0 {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		late = t.C
	}
	select {
	case <-s.changed:
	case <-late:
	case <-s.k.conn.Dead():
	}
}

// request asks the broker that leads the topic.
func (s *share) request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	s.asked = time.Now()
	return s.link.Broker(int(s.leader)).Request(ctx, req)
}

// batches takes what is to be told. Neighbours are told as one.
func (s *share) batches(renew bool) []kmsg.ShareAcknowledgeRequestTopicPartitionAcknowledgementBatch {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	words := s.acks
	s.acks = map[int64]int8{}
	if renew {
		for o := range s.out {
			words[o] = ackRenew
		}
	}
	offsets := make([]int64, 0, len(words))
	for o := range words {
		offsets = append(offsets, o)
	}
	slices.Sort(offsets)
	var bs []kmsg.ShareAcknowledgeRequestTopicPartitionAcknowledgementBatch
	for _, o := range offsets {
		if n := len(bs); n > 0 && bs[n-1].LastOffset == o-1 && bs[n-1].AcknowledgeTypes[0] == words[o] {
			bs[n-1].LastOffset = o
			continue
		}
		b := kmsg.NewShareAcknowledgeRequestTopicPartitionAcknowledgementBatch()
		b.FirstOffset, b.LastOffset, b.AcknowledgeTypes = o, o, []int8{words[o]}
		bs = append(bs, b)
	}
	return bs
}

// acknowledge tells the broker what it is to be told, and, where final, that the
// session ends.
func (s *share) acknowledge(ctx context.Context, renew, final bool) error {
	req := kmsg.NewPtrShareAcknowledgeRequest()
	req.GroupID, req.MemberID, req.ShareSessionEpoch, req.IsRenewAck = &s.tube, &s.member, s.epoch, renew
	if final {
		req.ShareSessionEpoch = -1
	}
	if bs := s.batches(renew); len(bs) > 0 {
		p := kmsg.NewShareAcknowledgeRequestTopicPartition()
		p.AcknowledgementBatches = bs
		t := kmsg.NewShareAcknowledgeRequestTopic()
		t.TopicID, t.Partitions = s.topic, append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
	}
	k, err := s.request(ctx, req)
	if err != nil {
		return err
	}
	resp := k.(*kmsg.ShareAcknowledgeResponse)
	err = failure(resp.ErrorCode, resp.ErrorMessage)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			err = errors.Join(err, failure(p.ErrorCode, p.ErrorMessage))
		}
	}
	s.epoch++
	if renew {
		s.renewed = s.asked
	}
	return err
}

// fetch asks for n messages. What is to be told goes along.
func (s *share) fetch(n int, wait time.Duration) error {
	req := kmsg.NewPtrShareFetchRequest()
	req.GroupID, req.MemberID, req.ShareSessionEpoch = &s.tube, &s.member, s.epoch
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(wait.Milliseconds()), 1, maxRead/2
	req.MaxRecords, req.BatchSize, req.ShareAcquireMode = int32(n), int32(n), 1
	bs := []kmsg.ShareAcknowledgeRequestTopicPartitionAcknowledgementBatch(nil)
	if s.epoch > 0 {
		bs = s.batches(false)
	}
	if s.epoch == 0 || len(bs) > 0 {
		p := kmsg.NewShareFetchRequestTopicPartition()
		for _, b := range bs {
			p.AcknowledgementBatches = append(p.AcknowledgementBatches, kmsg.ShareFetchRequestTopicPartitionAcknowledgementBatch(b))
		}
		t := kmsg.NewShareFetchRequestTopic()
		t.TopicID, t.Partitions = s.topic, append(t.Partitions, p)
		req.Topics = append(req.Topics, t)
	}
	k, err := s.request(context.Background(), req)
	if err != nil {
		return err
	}
	resp := k.(*kmsg.ShareFetchResponse)
	s.epoch++
	if err := failure(resp.ErrorCode, resp.ErrorMessage); err != nil {
		return s.refusal(err, len(bs) > 0)
	}
	s.lock = time.Duration(resp.AcquisitionLockTimeoutMillis) * time.Millisecond
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := failure(p.AcknowledgeErrorCode, p.AcknowledgeErrorMessage); err != nil {
				return err
			}
			if err := failure(p.ErrorCode, p.ErrorMessage); err != nil {
				return s.refusal(err, false)
			}
			if err := s.take(&p); err != nil {
				return err
			}
		}
	}
	s.refused = 0
	return nil
}

func failure(code int16, text *string) error {
	err := kerr.ErrorForCode(code)
	if err != nil && text != nil && *text != "" {
		err = fmt.Errorf("%w (%s)", err, *text)
	}
	return err
}

// refusal decides what an error means that says nothing about messages: nil to
// try again, as with a broker that has just started.
func (s *share) refusal(err error, told bool) error {
	s.k.mu.Lock()
	held := len(s.out) > 0
	s.k.mu.Unlock()
	lost := errors.Is(err, kerr.ShareSessionNotFound) || errors.Is(err, kerr.InvalidShareSessionEpoch)
	if lost {
		s.epoch = 0 // what the session had is with others
	}
	soon := lost || errors.Is(err, kerr.UnknownServerError) || errors.Is(err, kerr.CoordinatorNotAvailable) || errors.Is(err, kerr.CoordinatorLoadInProgress)
	if s.refused++; s.refused > patience || !soon || lost && (held || told) {
		return err
	}
	select {
	case <-time.After(20 * time.Millisecond):
	case <-s.k.conn.Dead():
	}
	return nil
}

// take sorts what was handed out to us.
func (s *share) take(p *kmsg.ShareFetchResponseTopicPartition) error {
	if len(p.AcquiredRecords) == 0 {
		return nil
	}
	raw := &kmsg.FetchResponseTopicPartition{RecordBatches: p.Records}
	fetched, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: s.tube}, raw, kgo.DefaultDecompressor(), nil)
	if fetched.Err != nil {
		return fetched.Err
	}
	records := map[int64]*kgo.Record{}
	for _, r := range fetched.Records {
		records[r.Offset] = r
	}
	var fresh, old []*message
	var over []int64
	words := map[int64]int8{}
	for _, a := range p.AcquiredRecords {
		for o := a.FirstOffset; o <= a.LastOffset; o++ {
			r := records[o]
			switch {
			case r == nil:
				words[o] = ackGap
			case expired(r):
				over = append(over, o)
			case a.DeliveryCount >= worn:
				old = append(old, s.message(r))
			default:
				fresh = append(fresh, s.message(r))
			}
		}
	}
	for i, err := range s.renew(old) {
		if err == nil {
			over = append(over, old[i].Offset)
		} else { // to be handed out as it is, as long as the broker does
			fresh = append(fresh, old[i])
		}
	}
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	maps.Copy(s.acks, words)
	for _, o := range over {
		s.acks[o], s.uncut = ackAccept, cuts
	}
	if len(s.out) == 0 {
		s.renewed = s.asked
	}
	if !s.k.closed { // else the end of the session gives them back
		for _, m := range fresh {
			s.out[m.Offset] = struct{}{}
		}
		s.k.came(fresh)
	}
	return nil
}

func (s *share) message(r *kgo.Record) *message {
	return &message{Record: r, source: s, tube: s.tube, id: idOf(r, s.topic)}
}

// renew puts copies of messages that have not come yet, while what is held is still
// ours, and returns for each why it could not.
func (s *share) renew(ms []*message) []error {
	ctx, cancel := context.WithTimeout(context.Background(), s.lock/2)
	defer cancel()
	put := func(m *message) chan error { return s.k.conn.produce(ctx, again(s.tube, m.id, m.Record)) }
	confirms := make([]chan error, len(ms))
	for i, m := range ms {
		confirms[i] = put(m)
	}
	errs := make([]error, len(ms))
	for i, m := range ms {
		errs[i] = s.k.conn.confirmed(ctx, s.tube, confirms[i], func() chan error { return put(m) })
	}
	return errs
}
