package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/e2e/judge"
)

// A session is a client's process.
type session struct {
	w    *world
	name string
	life *life
	bus  *mortalBus
	c    *client.Client
	addr string // of its replies
	wg   sync.WaitGroup
}

// open begins a session, and tries until there is one; nil when ctx ends.
func (w *world) open(ctx context.Context, name string) *session {
	for {
		s := &session{w: w, name: name, life: w.newLife(name)}
		link := bus.New(w.broker.Driver(), bus.Options{Log: w.log(name)})
		s.bus = &mortalBus{l: s.life, Bus: link, seen: func(d bus.Delivery) { w.seen(d, "") }}
		// What is behind c.Open is not shown: the tubes that it reads are.
		s.bus.opened = func(tubes []bus.Tube) {
			if s.addr == "" {
				s.addr = tubes[0].Name
			}
		}
		s.life.last = func() { go link.Close() }
		c, err := client.Open(ctx, client.Options{
			Bus: s.bus, Pool: pool, Tube: tube, ReplyPrefix: prefix, Sender: name, Log: w.log(name), AcceptTimeout: 2 * time.Minute,
		})
		if err == nil {
			s.c = c
			return s
		}
		s.life.die("could not open")
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

// close ends a session in order.
func (s *session) close() {
	s.c.Close()
	s.life.die("closed")
	s.wg.Wait()
}

// run is the life of one client.
func (w *world) client(ctx context.Context, p clientPlan) {
	if !pause(ctx, p.from) {
		return
	}
	s := w.open(ctx, p.name)
	if s == nil {
		return
	}
	if p.death > 0 {
		timer := time.AfterFunc(p.death, func() { s.life.die("killed") })
		defer timer.Stop()
	}
	if p.stalls > 0 {
		timer := time.AfterFunc(p.stallAt, func() { w.count("freeze client"); s.life.stall(p.stalls) })
		defer timer.Stop()
	}
	for _, t := range p.tasks {
		if !pause(ctx, t.after) || s.life.isDead() {
			break
		}
		if t.legacy {
			s.legacy(ctx, t)
		} else {
			s.submit(ctx, t)
		}
	}
	s.wg.Wait()
	s.close()
}

// begun makes the record of a task.
func (s *session) record(id string, t task) *judge.Job {
	j := &judge.Job{
		ID: id, Token: t.tag, Pool: pool, Sender: s.name, Command: t.command, Args: t.args(),
		Changes: t.command != "read", InOrder: t.inOrder && !t.legacy, Stream: t.stream && !t.legacy, Hostile: t.hostile, Legacy: t.legacy,
	}
	if t.guests != "" {
		j.Guests = strings.Split(t.guests, ",")
	}
	if t.expires > 0 && !t.legacy {
		j.Expires = time.Now().Add(t.expires)
	}
	if !s.w.plan.orderly {
		j.Sender = "" // then the order of submit is not the order of delivery
	}
	if s.w.plan.foreign {
		j.Ends = []cbsdmq.State{cbsdmq.Done, cbsdmq.Failed, cbsdmq.Refused, cbsdmq.Cancelled, cbsdmq.Timeout, cbsdmq.Unknown}
	}
	return j
}

// newID makes an id from the schedule's dice.
func (w *world) newID() string {
	var entropy [10]byte
	copy(entropy[:], w.dice.text("ids", 10))
	var id ulid.ULID
	if err := id.SetTime(uint64(time.Now().UnixMilli())); err != nil {
		panic(err)
	}
	if err := id.SetEntropy(entropy[:]); err != nil {
		panic(err)
	}
	return id.String()
}

func (t task) job(id string, expires time.Time) client.Job {
	j := client.Job{Command: t.command, Stream: t.stream, InOrder: t.inOrder, ID: id, Expires: expires}
	for _, a := range t.args() {
		name, value, _ := strings.Cut(a, "=")
		j.Args = append(j.Args, cbsdmq.Arg{Name: name, Value: value})
	}
	return j
}

// submit submits a task and leaves somebody behind who waits for its end.
func (s *session) submit(ctx context.Context, t task) {
	w := s.w
	id := w.newID()
	j := s.record(printed(id), t)
	if t.tombed {
		s.cancel(ctx, j)
	}
	w.addJob(j)
	s.put(ctx, j, t.job(id, j.Expires))
	if t.cancel > 0 {
		s.wg.Go(func() {
			if pause(ctx, t.cancel) {
				s.cancel(ctx, j)
			}
		})
	}
	if t.again > 0 {
		s.wg.Go(func() {
			if !pause(ctx, t.again) {
				return
			}
			if other := w.open(ctx, s.name+" again"); other != nil {
				other.put(ctx, j, t.job(id, j.Expires))
				other.follow(ctx, j, false)
				other.close()
			}
		})
	}
	s.wg.Go(func() {
		if t.ask {
			s.ask(ctx, j)
		}
		if !t.deserted {
			s.follow(ctx, j, t.stream)
		}
	})
}

// put submits a job until the broker has it, or the process is dead.
func (s *session) put(ctx context.Context, j *judge.Job, job client.Job) {
	for range 3 {
		i := 0
		at := s.w.now()
		s.w.change(func() {
			i = len(j.Submits)
			j.Submits = append(j.Submits, judge.Submit{At: at, Address: s.addr})
		})
		_, err := s.c.Submit(ctx, job)
		done := s.w.now()
		s.w.trace("submit", s.name, j.ID, fmt.Sprint(err))
		s.w.change(func() {
			j.Submits[i].Done, j.Submits[i].Confirmed = done, err == nil
			// It was confirmed by an agent that had it from before: this address
			// may have been lost on its way, and asking tells how it ends.
			j.Submits[i].Left = s.bus.doubt.Load()
		})
		if err == nil || s.life.isDead() || ctx.Err() != nil {
			return
		}
	}
}

func (s *session) cancel(ctx context.Context, j *judge.Job) {
	i := 0
	at := s.w.now()
	s.w.change(func() { i = len(j.Cancels); j.Cancels = append(j.Cancels, judge.Cancel{At: at}) })
	err := s.c.Cancel(ctx, j.ID)
	done := s.w.now()
	s.w.trace("cancel", s.name, j.ID, fmt.Sprint(err))
	s.w.change(func() { j.Cancels[i].Done, j.Cancels[i].Confirmed = done, err == nil })
}

// cancelUnwanted is somebody who cancels jobs whose start never reached a runner,
// before there is another, until enough.
func (w *world) cancelUnwanted(ctx context.Context, enough <-chan struct{}) {
	for {
		var j *judge.Job
		select {
		case id := <-w.unwanted:
			w.change(func() { j = w.jobs[id] })
		case <-enough:
			return
		}
		if j == nil {
			continue // of an original client
		}
		if s := w.open(ctx, "somebody"); s != nil {
			w.count("cancelled before its start")
			s.cancel(ctx, j)
			s.close()
		}
	}
}

// ask asks until the agent says that it has the job.
func (s *session) ask(ctx context.Context, j *judge.Job) {
	for range 3 {
		if _, _, err := s.c.Job(ctx, j.ID); err == nil {
			at := s.w.now()
			s.w.change(func() {
				if j.Accepted.IsZero() {
					j.Accepted = at
				}
			})
			return
		}
		if s.life.isDead() || !pause(ctx, time.Second) {
			return
		}
	}
}

// follow waits for the end of a job.
func (s *session) follow(ctx context.Context, j *judge.Job, stream bool) {
	for try := 0; !s.life.isDead() && ctx.Err() == nil; try++ {
		o := judge.Output{Job: j.ID, By: fmt.Sprintf("%s %d", s.name, try)}
		if stream && try == 0 {
			o.By = judge.StreamedBy + " of " + o.By
		}
		r, err := s.c.Follow(ctx, j.ID, 0, func(r cbsdmq.Reply) error {
			at := int64(len(o.Data)) + o.Missing
			if r.Offset < at {
				o.Broken = fmt.Sprintf("a piece at %d after %d bytes", r.Offset, at)
			}
			o.Missing += max(0, r.Offset-at)
			o.Data = append(o.Data, r.Output()...)
			return nil
		})
		if err == nil && o.Missing > 0 && slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "missing here") }) {
			continue // nobody answered: it says that it can be had later
		}
		if err == nil {
			s.w.told(o.By, r)
			s.w.change(func() { s.w.history.Outputs = append(s.w.history.Outputs, o) })
			return
		}
		if cbsdmq.CodeOf(err) == cbsdmq.CodeNotFound && s.w.healed.Load() {
			return
		}
		if !pause(ctx, time.Second) {
			return
		}
	}
}

// legacy submits a task as the original client does: the broker's id names the
// mailbox, and there is nothing to ask.
func (s *session) legacy(ctx context.Context, t task) {
	w := s.w
	j := s.record("legacy "+t.tag, t)
	body, err := json.Marshal(cbsdmq.Job{Command: t.command, Args: t.job("", time.Time{}).Args})
	if err != nil {
		panic(err)
	}
	j.Submits = []judge.Submit{{At: w.now()}}
	w.addJob(j)
	pctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	r := s.bus.Put(pctx, bus.Message{Tube: bus.Tube{Name: tube}, Body: body})[0]
	cancel()
	done := w.now()
	if r.Err != nil {
		w.change(func() { j.Submits[0].Done = done })
		return
	}
	addr := bus.MailboxName(prefix, r.ID)
	w.change(func() {
		j.Submits[0].Done, j.Submits[0].Confirmed, j.Submits[0].Address = done, true, addr
	})
	w.trace("legacy", j.ID, addr)
	s.wg.Go(func() {
		starts := w.forgot()
		one := &mortalBus{l: s.life, Bus: s.bus.Bus, seen: func(d bus.Delivery) {
			if w.forgot() == starts {
				w.seen(d, j.ID)
			} else {
				w.seen(d, "") // its connection broke: nobody waits here any more
			}
		}}
		for ctx.Err() == nil && !s.life.isDead() {
			c, err := one.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{{Name: addr, Kind: bus.Mailbox}}})
			for err == nil {
				rctx, cancel := context.WithTimeout(ctx, time.Minute)
				var ds []bus.Delivery
				ds, err = c.Receive(rctx, 1)
				cancel()
				if w.forgot() != starts {
					c.Close()
					return // its address is somebody else's now
				}
				if len(ds) > 0 {
					_ = c.Ack(ctx, ds...)
					c.Close()
					return
				}
			}
			if c != nil {
				c.Close()
			}
			if !errors.Is(err, context.DeadlineExceeded) && !pause(ctx, time.Second) {
				return
			}
		}
	})
}

// forgot is how often the broker has forgotten everything.
func (w *world) forgot() (n int) {
	w.change(func() {
		for _, e := range w.history.Events {
			if e.Kind == judge.BrokerForgot {
				n++
			}
		}
	})
	return n
}

// readLeft reads what is left in the mailboxes of those who have gone. Nobody
// took it away, so each final reply must be there or have been read.
func (w *world) readLeft(ctx context.Context) {
	link := bus.New(w.broker.Driver(), bus.Options{})
	defer link.Close()
	type box struct{ addr, job string }
	var boxes []box
	ids := make(map[string]string) // under which jobs ran, by their tags
	w.machine.do(func() {
		for _, a := range w.machine.acts {
			tag, _ := strings.CutPrefix(a.Args[0], "tag=")
			_, ids[tag], _ = strings.Cut(a.Job, "/")
		}
	})
	w.change(func() {
		for _, j := range w.order {
			if id := ids[j.Token]; j.Legacy && !j.Submits[0].Confirmed && id != "" {
				// The broker's word was lost, and with it the address.
				number, _, _ := strings.Cut(id, ".")
				j.Submits[0].Address = prefix + number
			}
			for _, s := range j.Submits {
				b := box{addr: s.Address}
				if j.Legacy {
					b.job = j.ID
				}
				i := slices.IndexFunc(boxes, func(o box) bool { return o.addr == b.addr })
				switch {
				case b.addr == "":
				case i < 0:
					boxes = append(boxes, b)
				case boxes[i].job != b.job:
					boxes[i].job = "" // the broker gave its number twice
				}
			}
		}
	})
	for _, b := range boxes {
		c, err := link.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{{Name: b.addr, Kind: bus.Mailbox}}})
		if err != nil {
			w.t.Error(err)
			return
		}
		for {
			rctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			ds, err := c.Receive(rctx, 100)
			cancel()
			if err != nil {
				break
			}
			for _, d := range ds {
				w.seen(d, b.job)
			}
			_ = c.Ack(ctx, ds...)
		}
		c.Close()
	}
}
