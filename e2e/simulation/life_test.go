package simulation

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/runner"
)

// A life is the life of one process. Everything that it does to the world goes
// through at, at the beginning and at the end of each call: there it can die. A
// call of a dead process does nothing and returns an error, so what the process
// computes after its death is known to nobody.
type life struct {
	w    *world
	name string
	dead chan struct{}
	gone chan struct{} // closed after last: only then calls return to the dead
	once sync.Once
	last func() // what is done at the moment of death: nothing that the dead compute is to be seen in it

	left  atomic.Int64 // calls at where until it dies, 0 = it does not
	where string       // "" = anywhere

	agent   bool // it serves the pool
	mu      sync.Mutex
	stalled chan struct{} // closed when it goes on; nil = it does not stand still
}

func (w *world) newLife(name string) *life {
	return &life{w: w, name: name, dead: make(chan struct{}), gone: make(chan struct{}), last: func() {}}
}

// Nobody tries again with a closed bus.
var errDead = fmt.Errorf("the process was killed: %w", bus.ErrClosed)

func (l *life) isDead() bool {
	select {
	case <-l.dead:
		<-l.gone
		return true
	default:
		return false
	}
}

// die kills the process.
func (l *life) die(where string) {
	l.once.Do(func() {
		close(l.dead)
		l.w.trace("die", l.name, where)
		if strings.HasPrefix(l.name, "agent") {
			l.w.count("killed at " + where)
		}
		l.last()
		close(l.gone)
	})
}

// dieAt kills the process as c says. It is called before the process begins.
func (l *life) dieAt(c crash) {
	l.where = c.where
	l.left.Store(int64(c.n))
}

// at is a call at its boundary. It may take a while.
func (l *life) at(where string) error {
	l.stand()
	if l.isDead() {
		return errDead
	}
	if slow := l.w.slow(where); slow > 0 {
		t := time.NewTimer(slow)
		defer t.Stop()
		select {
		case <-t.C:
		case <-l.dead:
		}
	}
	return l.count(where)
}

// count is at of a call that is never slow.
func (l *life) count(where string) error {
	l.stand()
	if (l.where == "" || l.where == where) && l.left.Add(-1) == 0 {
		l.die(where)
	}
	if l.isDead() {
		return errDead
	}
	return nil
}

// around is a call with both of its boundaries.
func (l *life) around(where string, f func() error) error {
	if err := l.at(where); err != nil {
		return err
	}
	err := f()
	if err2 := l.at(where + " done"); err2 != nil {
		return err2
	}
	return err
}

// mortalBus is a bus in the hands of a process.
type mortalBus struct {
	l *life
	*bus.Bus
	seen   func(bus.Delivery) // each message of a mailbox that arrived
	opened func(tubes []bus.Tube)
	doubt  atomic.Bool // whether the broker has the last job
}

func (b *mortalBus) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	return b.put(func() []bus.Result { return b.Bus.Put(ctx, ms...) }, ms)
}

func (b *mortalBus) PutDuring(ctx context.Context, outages int, ms ...bus.Message) []bus.Result {
	return b.put(func() []bus.Result { return b.Bus.PutDuring(ctx, outages, ms...) }, ms)
}

func (b *mortalBus) put(f func() []bus.Result, ms []bus.Message) []bus.Result {
	var rs []bus.Result
	err := b.l.around("put", func() error {
		b.l.w.forgetNow(b, ms)
		rs = f()
		return nil
	})
	if err != nil {
		rs = make([]bus.Result, len(ms))
		for i := range rs {
			rs[i].Err = err
		}
	}
	for i, m := range ms {
		b.l.w.trace("put", b.l.name, m.Tube.Name, fmt.Sprint(rs[i].Err))
		if m.Tube.Name == tube {
			b.doubt.Store(rs[i].Err != nil)
		}
	}
	return rs
}

func (b *mortalBus) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	if b.opened != nil {
		b.opened(o.Tubes)
	}
	var c bus.Consumer
	err := b.l.around("consume", func() (err error) { c, err = b.Bus.Consume(ctx, o); return err })
	if err != nil {
		if c != nil {
			c.Close()
		}
		return nil, err
	}
	return &mortalConsumer{l: b.l, Consumer: c, mailbox: o.Tubes[0].Kind == bus.Mailbox, seen: b.seen}, nil
}

func (b *mortalBus) Expire(ctx context.Context, tube string, id uint64, age time.Duration) error {
	return b.l.around("expire", func() error { return b.Bus.Expire(ctx, tube, id, age) })
}

func (b *mortalBus) Sweep(ctx context.Context, match func(string) bool, age time.Duration) (n int, err error) {
	err = b.l.around("sweep", func() (err error) { n, err = b.Bus.Sweep(ctx, match, age); return err })
	return n, err
}

func (b *mortalBus) Inspect(ctx context.Context, t bus.Tube) (in bus.Info, err error) {
	err = b.l.around("inspect", func() (err error) { in, err = b.Bus.Inspect(ctx, t); return err })
	return in, err
}

type mortalConsumer struct {
	l *life
	bus.Consumer
	mailbox bool
	seen    func(bus.Delivery)
}

func (c *mortalConsumer) Receive(ctx context.Context, most int) (ds []bus.Delivery, err error) {
	err = c.l.around("receive", func() (err error) { ds, err = c.Consumer.Receive(ctx, most); return err })
	if err != nil {
		return nil, err
	}
	if c.mailbox && c.seen != nil {
		for _, d := range ds {
			c.seen(d)
		}
	}
	return ds, nil
}

func (c *mortalConsumer) Ack(ctx context.Context, ds ...bus.Delivery) error {
	return c.l.around("ack", func() error { return c.Consumer.Ack(ctx, ds...) })
}

func (c *mortalConsumer) Release(ctx context.Context, delay time.Duration, ds ...bus.Delivery) error {
	return c.l.around("release", func() error { return c.Consumer.Release(ctx, delay, ds...) })
}

func (c *mortalConsumer) Age(ctx context.Context, d bus.Delivery) (age time.Duration, err error) {
	err = c.l.around("age", func() (err error) { age, err = c.Consumer.Age(ctx, d); return err })
	return age, err
}

// mortalRunner is the runner in the hands of a process.
type mortalRunner struct {
	l *life
	r agent.Runner
}

func (l *life) dial(ctx context.Context) (r agent.Runner, err error) {
	err = l.around("dial", func() (err error) { r, err = l.w.machine.dial(ctx); return err })
	if err != nil {
		return nil, err
	}
	return &mortalRunner{l, r}, nil
}

func (r *mortalRunner) Start(starts ...runner.Start) error {
	return r.l.around("start", func() error { return r.r.Start(starts...) })
}

func (r *mortalRunner) Ack(keys ...runner.Key) error {
	return r.l.around("acknowledge", func() error { return r.r.Ack(keys...) })
}

func (r *mortalRunner) List(ctx context.Context, pool string) (s runner.Snapshot, err error) {
	err = r.l.around("list", func() (err error) { s, err = r.r.List(ctx, pool); return err })
	return s, err
}

func (r *mortalRunner) Kill(ctx context.Context, key runner.Key, sig syscall.Signal) error {
	return r.l.around("kill", func() error { return r.r.Kill(ctx, key, sig) })
}

func (r *mortalRunner) Output(ctx context.Context, key runner.Key) (stdout, stderr runner.File, err error) {
	err = r.l.around("output", func() (err error) { stdout, stderr, err = r.r.Output(ctx, key); return err })
	return stdout, stderr, err
}

func (r *mortalRunner) Next(ctx context.Context) (es []runner.Event, err error) {
	err = r.l.around("next", func() (err error) { es, err = r.r.Next(ctx); return err })
	if err != nil {
		return nil, err
	}
	return es, nil
}

func (r *mortalRunner) Close() error { return r.r.Close() }

// mortalCBSD is CBSD in the hands of a process.
type mortalCBSD struct {
	*plans
	l *life
}

func (c *mortalCBSD) Before(ctx context.Context, p cbsd.Plan) (s cbsd.Snapshot, err error) {
	err = c.l.around("before", func() (err error) { s, err = c.plans.Before(ctx, p); return err })
	return s, err
}

func (c *mortalCBSD) After(ctx context.Context, p cbsd.Plan, before cbsd.Snapshot, exit cbsd.Exit, tail []byte) (v cbsd.Verdict) {
	_ = c.l.around("after", func() error { v = c.plans.After(ctx, p, before, exit, tail); return nil })
	return v
}

func (c *mortalCBSD) Lookups(ctx context.Context, p cbsd.Plan, job cbsdmq.Job, now cbsd.Snapshot) (guid, dskGuid, vnc string) {
	_ = c.l.around("lookups", func() error { guid, dskGuid, vnc = c.plans.Lookups(ctx, p, job, now); return nil })
	return guid, dskGuid, vnc
}
