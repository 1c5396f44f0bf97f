package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cbsd/cbsdmq"
)

// How the follower of an own job finds out what the replies do not tell.
const (
	firstAsk = time.Second            // after the submit; most jobs have ended by then
	askAgain = 3 * time.Second        // until the agent has the job
	gapWait  = 300 * time.Millisecond // for a piece that was overtaken
	longPoll = 20 * time.Second
	endless  = 1 << 62 // beyond the end of every output
)

// Follow waits for the end of a job and returns its final reply, whatever its
// State. f, if not nil, gets the job's stdout from the byte at from on: each
// reply it is called with holds the next piece, at Offset. Pieces neither
// overlap nor leave something out, except where output was dropped: then Offset
// lies beyond the end of the piece before. Where f returns an error Follow
// returns it. Of a command that takes more than seconds f is told, too, how far
// it is: by replies without output, with Work.
//
// The job may be one of this session or anybody's, running or ended.
func (c *Client) Follow(ctx context.Context, id string, from int64, f func(cbsdmq.Reply) error) (cbsdmq.Reply, error) {
	id, err := c.jobID(id)
	if err != nil {
		return cbsdmq.Reply{}, err
	}
	s := &stream{c: c, id: id, have: from, f: f}
	c.mu.Lock()
	b := c.jobs[id]
	c.mu.Unlock()
	if b == nil || !b.follow() {
		return s.poll(ctx)
	}
	final, err := (&watch{stream: s, box: b}).run(ctx)
	b.leave()
	if err == nil {
		c.forget(b)
	}
	return final, err
}

// stream hands out a job's stdout in order.
type stream struct {
	c    *Client
	id   string
	have int64 // bytes handed out, or dropped before that
	f    func(cbsdmq.Reply) error
}

// emit hands out what of the bytes at offset was not handed out before.
func (s *stream) emit(offset int64, p []byte) error {
	end := offset + int64(len(p))
	if s.f == nil || end <= s.have || len(p) == 0 {
		return nil
	}
	if offset < s.have {
		p = p[s.have-offset:]
		offset = s.have
	}
	r := cbsdmq.Reply{Offset: offset, ID: s.printed()}
	r.SetOutput(p)
	s.have = end
	return s.f(r)
}

// moved hands out how far the command is.
func (s *stream) moved(w *cbsdmq.Work) error {
	if s.f == nil || w == nil {
		return nil
	}
	return s.f(cbsdmq.Reply{Offset: s.have, ID: s.printed(), Progress: w.Percent, Work: w})
}

// fill asks for the output before the byte at to, and hands it out.
func (s *stream) fill(ctx context.Context, to int64) error {
	for s.have < to {
		resp, err := s.c.ask(ctx, cbsdmq.Request{Op: cbsdmq.OpOutput, Job: s.id, Offset: s.have})
		if err != nil {
			return err
		}
		before := s.have
		if err := s.emit(resp.Offset, resp.Data); err != nil {
			return &callerError{err}
		}
		if s.have == before {
			return nil // nothing of it is kept, or the agent says what makes no sense
		}
	}
	return nil
}

// callerError is an error of the caller's f, not to be mistaken for the agent's.
type callerError struct{ err error }

func (e *callerError) Error() string { return e.err.Error() }
func (e *callerError) Unwrap() error { return e.err }

// poll follows a job by asking for its output.
func (s *stream) poll(ctx context.Context) (cbsdmq.Reply, error) {
	answered, unanswered := false, 0
	for {
		r := cbsdmq.Request{Op: cbsdmq.OpOutput, Job: s.id, Offset: s.have}
		if s.f == nil {
			r.Offset = endless
		}
		if answered {
			r.Wait, r.Work = longPoll, s.f != nil
		}
		resp, err := s.c.ask(ctx, r)
		switch {
		case err == nil:
			answered, unanswered = true, 0
		case ctx.Err() != nil, s.c.life.Err() != nil, !silent(err), !answered:
			return cbsdmq.Reply{}, s.leave(err)
		default:
			if unanswered++; unanswered >= maxSilent {
				return cbsdmq.Reply{}, s.away(err)
			}
			continue
		}
		if err := s.emit(resp.Offset, resp.Data); err != nil {
			return cbsdmq.Reply{}, err
		}
		if err := s.moved(resp.Work); err != nil {
			return cbsdmq.Reply{}, err
		}
		if resp.End {
			if resp.Final == nil {
				return cbsdmq.Reply{}, incomplete()
			}
			return *resp.Final, nil
		}
	}
}

// leave adds to an error of waiting how to come back.
func (s *stream) leave(err error) error {
	if e, ok := errors.AsType[*cbsdmq.Error](err); ok && e.Code == cbsdmq.CodeGaveUp && e.Hint == "" {
		e.Hint = fmt.Sprintf("the job goes on; come back with `%s`", s.c.o.Follow(s.printed()))
	}
	return err
}

// away is the error of a follower whose agent has stopped to answer.
func (s *stream) away(last error) error {
	if cbsdmq.CodeOf(last) != cbsdmq.CodeGaveUp {
		return last
	}
	return s.leave(cbsdmq.Errorf(cbsdmq.CodeGaveUp, "", "the agent of %s does not answer any more", s.c.pool()))
}

func (s *stream) printed() string {
	if s.c.o.Pool == "" {
		return s.id
	}
	return cbsdmq.PrintedID(s.c.o.Pool, s.id)
}
