package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/e2e/judge"
)

// times are those of a round: chaos ends first; work that was begun may go on
// until life ends.
type times struct {
	chaos, life context.Context
	think       [2]time.Duration // pause of a client between two jobs
}

// inFlight is how many jobs a client waits for at one time.
const inFlight = 6

// library is a client that uses package client. Now and then it goes away
// without waiting for its replies and comes back as another session.
func (p *pool) library(t times, rnd *rand.Rand, name string) {
	l := p.workload(rnd, name)
	for n := 1; t.chaos.Err() == nil; n++ {
		c, closeSession, err := p.session(t.life, name)
		if err != nil {
			p.w.note("%s of %s: %v", name, p.name, err)
			return
		}
		s := &session{p: p, c: c, t: t, l: l, address: fmt.Sprintf("%s session %d", l.sender, n), slots: make(chan struct{}, inFlight)}
		jobs := 5 + rnd.IntN(30)
		for range jobs {
			if !wait(t.chaos, between(rnd, t.think[0], t.think[1])) {
				break
			}
			s.submit(rnd)
		}
		if t.chaos.Err() == nil && rnd.IntN(3) == 0 {
			p.w.note("%s leaves", s.address)
			closeSession() // with its replies on their way
			s.wg.Wait()
		} else {
			s.wg.Wait()
			closeSession()
		}
	}
}

// A session is one session of a library client.
type session struct {
	p       *pool
	c       *client.Client
	t       times
	l       *workload
	address string
	slots   chan struct{}
	wg      sync.WaitGroup
}

func (s *session) submit(rnd *rand.Rand) {
	select {
	case s.slots <- struct{}{}:
	case <-s.t.life.Done():
		return
	}
	j, know := s.l.next()
	s.l.expires(&j, &know)
	j.Stream = rnd.IntN(3) == 0
	know.Stream, know.Asks = j.Stream, true
	rec := s.p.w.rec
	job, done := rec.submitted(know, s.address)
	_, err := s.c.Submit(s.t.life, j)
	for tries := 0; err != nil && cbsdmq.CodeOf(err) == cbsdmq.CodeGaveUp && tries < 3 && s.t.life.Err() == nil; tries++ {
		done(false)
		done = rec.repeated(job, s.address)
		_, err = s.c.Submit(s.t.life, j) // under its id
	}
	done(err == nil)
	if err != nil {
		s.p.w.note("%s: submit of %s: %v", s.address, know.ID, err)
		<-s.slots
		rec.left(job, s.address)
		return
	}
	var cancelAfter time.Duration
	if rnd.IntN(16) == 0 {
		cancelAfter = 1 + between(rnd, 0, 1500*time.Millisecond)
	}
	s.wg.Go(func() {
		defer func() { <-s.slots }()
		s.follow(job, j.Stream)
	})
	if cancelAfter > 0 {
		s.wg.Go(func() {
			if !wait(s.t.life, cancelAfter) {
				return
			}
			done := rec.cancelling(job)
			err := s.c.Cancel(s.t.life, know.ID)
			done(err == nil)
		})
	}
}

// follow waits for the end of a job.
func (s *session) follow(job *judge.Job, stream bool) {
	out := judge.Output{Job: job.ID, By: judge.StreamedBy + " to " + s.address}
	var piece func(cbsdmq.Reply) error
	if stream {
		piece = func(r cbsdmq.Reply) error {
			have := int64(len(out.Data)) + out.Missing
			switch {
			case r.Offset < have:
				out.Broken = fmt.Sprintf("a piece at %d, there are %d bytes", r.Offset, have)
			case r.Offset > have:
				out.Missing += r.Offset - have
			}
			out.Data = append(out.Data, r.Output()...)
			return nil
		}
	}
	for {
		final, err := s.c.Follow(s.t.life, job.ID, int64(len(out.Data))+out.Missing, piece)
		if err == nil {
			s.p.w.rec.reply(final, func(r *judge.Reply) { r.Address = s.address })
			// Where it says that some is missing here nobody was there to ask.
			if stream && len(final.Warnings) == 0 {
				s.p.w.rec.output(out)
			}
			return
		}
		s.p.w.note("%s: following %s: %v", s.address, job.ID, err)
		if s.t.life.Err() != nil {
			return
		}
		if cbsdmq.CodeOf(err) != cbsdmq.CodeGaveUp && cbsdmq.CodeOf(err) != cbsdmq.CodeUnreachable && cbsdmq.CodeOf(err) != cbsdmq.CodeNotFound ||
			s.closed(job) || !wait(s.t.life, 200*time.Millisecond) {
			s.p.w.rec.left(job, s.address)
			return
		}
	}
}

// closed reports whether the session was closed: requests fail at once then.
func (s *session) closed(job *judge.Job) bool {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(s.t.life, 100*time.Millisecond)
	defer cancel()
	_, _, err := s.c.Job(ctx, job.ID)
	return err != nil && ctx.Err() == nil && time.Since(begun) < 50*time.Millisecond && cbsdmq.CodeOf(err) == cbsdmq.CodeGaveUp
}
