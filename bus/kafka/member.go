package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// heartbeat joins the group, or stays in it.
func (s *share) heartbeat(ctx context.Context) error {
	req := kmsg.NewPtrShareGroupHeartbeatRequest()
	req.GroupID, req.MemberID, req.MemberEpoch = s.tube, s.member, s.memberEpoch
	if s.memberEpoch == 0 {
		req.SubscribedTopicNames = []string{s.tube}
	}
	resp, err := req.RequestWith(ctx, s.link)
	if err != nil {
		return err
	}
	if err := failure(resp.ErrorCode, resp.ErrorMessage); err != nil {
		return err
	}
	s.memberEpoch = resp.MemberEpoch
	s.beat = time.Duration(resp.HeartbeatIntervalMillis) * time.Millisecond
	return nil
}

// stayAlive beats until the consumer is closed, and cuts off what was read.
func (s *share) stayAlive() {
	for {
		t := time.NewTimer(max(time.Second, s.beat))
		select {
		case <-t.C:
		case <-s.k.closing:
			t.Stop()
			return
		case <-s.k.conn.Dead():
			t.Stop()
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		err := s.heartbeat(ctx)
		if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.FencedMemberEpoch) || errors.Is(err, kerr.GroupIDNotFound) {
			s.memberEpoch = 0
			err = s.heartbeat(ctx)
		}
		if err == nil {
			s.cut(ctx)
		}
		cancel()
		if err != nil && !kerr.IsRetriable(err) && s.k.conn.Usable() == nil {
			_ = s.k.conn.Fail(s.k.conn.reason(context.Background(), "staying in the share group "+s.tube, err))
			return
		}
	}
}

// cut removes from the topic what every consumer has done with. A broker that
// does not let us keeps it for as long as the topic says.
func (s *share) cut(ctx context.Context) {
	s.k.mu.Lock()
	due := s.uncut > 0
	if due {
		s.uncut--
	}
	s.k.mu.Unlock()
	if !due {
		return
	}
	if o, err := s.k.conn.place(ctx, s.tube); err == nil && o.StartOffset > 0 {
		offsets := kadm.Offsets{}
		offsets.AddOffset(s.tube, 0, o.StartOffset, -1)
		_, _ = s.link.adm.DeleteRecords(ctx, offsets)
	}
}

// close ends the session, which gives back what we hold, and leaves the group.
func (s *share) close(ctx context.Context) {
	defer s.k.conn.abandon(s.link)
	select {
	case <-s.ended:
	case <-ctx.Done():
		return
	}
	if s.k.conn.Failed() != nil {
		return
	}
	if s.epoch > 0 {
		_ = s.acknowledge(ctx, false, true)
	}
	s.leave(ctx)
}

// leave tells the group that we are gone. It finds out by itself, in a while.
func (s *share) leave(ctx context.Context) {
	req := kmsg.NewPtrShareGroupHeartbeatRequest()
	req.GroupID, req.MemberID, req.MemberEpoch = s.tube, s.member, -1
	_, _ = req.RequestWith(ctx, s.link)
}

// memberID is unlike any other. A broker takes at most 36 bytes.
func memberID() string { return fmt.Sprintf("%016x%016x", newID(), newID()) }
