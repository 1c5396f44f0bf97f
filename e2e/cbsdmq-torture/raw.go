package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/e2e/judge"
)

// raw is a client that puts messages on the tube and reads mailboxes with
// nothing of package client in between: it sees each reply that is published.
type raw struct {
	p   *pool
	t   times
	bus *bus.Bus
	to  config.Section
	l   *workload
	rec *record
	wg  sync.WaitGroup
}

func (p *pool) raw(t times, rnd *rand.Rand, name string) (*raw, func(), error) {
	b, to, closer, err := p.open(t.life)
	if err != nil {
		return nil, nil, err
	}
	return &raw{p: p, t: t, bus: b, to: to, l: p.workload(rnd, name), rec: p.w.rec}, func() { closer.Close() }, nil
}

func (r *raw) mailbox(n uint64) bus.Tube {
	return bus.Tube{Name: bus.MailboxName(r.to.ReplyTubePrefix, n), Kind: bus.Mailbox}
}

func (r *raw) put(body []byte) bus.Result {
	ctx, cancel := context.WithTimeout(r.t.life, 20*time.Second)
	defer cancel()
	return r.bus.Put(ctx, bus.Message{Tube: bus.Tube{Name: r.to.Tube}, Body: body})[0]
}

// putNumbered submits a job whose replies go to the mailbox of the broker's
// number, and returns that. Where the job has no id of its own the number is it,
// too.
func (r *raw) putNumbered(body []byte, job *judge.Job, done func(bool)) (box bus.Tube, ok bool) {
	res := r.put(body)
	done(res.Err == nil)
	if res.Err != nil {
		return box, false // it may run all the same
	}
	box = r.mailbox(res.ID)
	r.rec.address(job, box.Name)
	switch j, _ := cbsdmq.ParseJob(body); { // as much of it as there is
	case j.Meta != nil && cbsdmq.ValidULID(j.Meta.ID):
		r.rec.named(job, cbsdmq.PrintedID(r.p.name, j.Meta.ID))
	case !r.p.w.broker.Forgets:
		r.rec.named(job, cbsdmq.PrintedID(r.p.name, strconv.FormatUint(res.ID, 10)))
	}
	return box, true
}

// read hands out what comes to a mailbox until ctx ends or f is true.
func (r *raw) read(ctx context.Context, box bus.Tube, f func(cbsdmq.Reply) bool) {
	for ctx.Err() == nil {
		in, err := r.bus.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{box}})
		if err != nil {
			if !wait(ctx, 100*time.Millisecond) {
				return
			}
			continue
		}
		if r.receive(ctx, in, box, f) {
			return
		}
	}
}

func (r *raw) receive(ctx context.Context, in bus.Consumer, box bus.Tube, f func(cbsdmq.Reply) bool) (enough bool) {
	defer in.Close()
	for {
		ds, err := in.Receive(ctx, 64)
		if err != nil {
			return ctx.Err() != nil
		}
		for _, d := range ds {
			reply, err := cbsdmq.ParseReply(d.Body)
			if err != nil {
				r.rec.found(fmt.Sprintf("a reply in %s that cannot be read: %.200q", box.Name, d.Body))
				continue
			}
			enough = f(reply) || enough
		}
		if in.Ack(ctx, ds...) != nil {
			continue // they come again
		}
		if enough {
			return true
		}
	}
}

// legacy sends jobs as the original clients do.
func (r *raw) legacy(rnd *rand.Rand) {
	defer r.wg.Wait()
	slots := make(chan struct{}, inFlight)
	for wait(r.t.chaos, between(rnd, r.t.think[0], r.t.think[1])) {
		j, know := r.l.next()
		if len(j.Words) > 0 {
			know.Args = know.Args[:len(know.Args)-len(j.Words)]
		}
		know.ID, know.Legacy, know.InOrder = "original "+know.Token, true, false
		text, err := body(j, 0, nil)
		if err != nil {
			r.p.w.note("making a job: %v", err)
			continue
		}
		job, done := r.rec.submitted(know, "")
		box, ok := r.putNumbered(text, job, done)
		if !ok {
			continue
		}
		if rnd.IntN(12) == 0 {
			r.rec.left(job, box.Name)
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-r.t.life.Done():
			return
		}
		r.wg.Go(func() {
			defer func() { <-slots }()
			r.await(job, box)
		})
	}
}

// await reads a mailbox until the final reply, and a little longer: a second
// one would be for a stranger.
func (r *raw) await(job *judge.Job, box bus.Tube) {
	ctx, cancel := context.WithCancel(r.t.life)
	defer cancel()
	var late *time.Timer
	r.read(ctx, box, func(reply cbsdmq.Reply) bool {
		r.rec.reply(reply, func(rr *judge.Reply) { rr.Address, rr.For = box.Name, job.ID })
		if reply.Final() && late == nil {
			late = time.AfterFunc(300*time.Millisecond, cancel)
		}
		return false
	})
}

// modern sends jobs with ids of ours, some of them twice, to a mailbox of its
// own, of which it reads everything.
func (r *raw) modern(rnd *rand.Rand) {
	reading, stop := context.WithCancel(r.t.life)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	var mu sync.Mutex
	open, ended := make(map[string]bool), make(map[string]bool)
	arrived := func(box bus.Tube) func(cbsdmq.Reply) bool {
		return func(reply cbsdmq.Reply) bool {
			r.rec.reply(reply, func(rr *judge.Reply) { rr.Address = box.Name })
			if reply.Final() {
				mu.Lock()
				delete(open, box.Name+" "+reply.ID)
				ended[box.Name+" "+reply.ID] = true
				mu.Unlock()
			}
			return false
		}
	}
	const low = 1 << 52
	numbers := []uint64{low | rnd.Uint64N(low), low | rnd.Uint64N(low)}
	for _, n := range numbers {
		box := r.mailbox(n)
		readers.Go(func() { r.read(reading, box, arrived(box)) })
	}
	send := func(j client.Job, job *judge.Job, n uint64, done func(bool)) {
		box := r.mailbox(n)
		key := box.Name + " " + job.ID
		mu.Lock()
		before := open[key] || ended[key]
		if !ended[key] { // what was answered is not answered again
			open[key] = true
		}
		mu.Unlock()
		text, err := body(j, n, &cbsdmq.Meta{
			V: cbsdmq.MetaVersion, ID: j.ID, Pool: r.p.name, Sender: r.l.sender, Stream: job.Stream, InOrder: j.InOrder, Words: j.Words,
		})
		if err != nil {
			r.p.w.note("making a job: %v", err)
			return
		}
		err = r.put(text).Err
		done(err == nil)
		if err != nil && !before { // else it was confirmed before
			mu.Lock()
			delete(open, key)
			mu.Unlock()
		}
	}
	for wait(r.t.chaos, between(rnd, r.t.think[0], r.t.think[1])) {
		mu.Lock()
		full := len(open) >= 2*inFlight
		mu.Unlock()
		if full {
			continue
		}
		j, know := r.l.next()
		know.Stream = rnd.IntN(3) == 0
		box := r.mailbox(numbers[0])
		job, done := r.rec.submitted(know, box.Name)
		send(j, job, numbers[0], done)
		switch rnd.IntN(12) {
		case 0: // again to the same address
			send(j, job, numbers[0], r.rec.repeated(job, box.Name))
		case 1: // and to another
			send(j, job, numbers[1], r.rec.repeated(job, r.mailbox(numbers[1]).Name))
		}
	}
	for wait(r.t.life, 50*time.Millisecond) {
		mu.Lock()
		n := len(open)
		mu.Unlock()
		if n == 0 {
			wait(r.t.life, 300*time.Millisecond) // for what is too many
			return
		}
	}
}
