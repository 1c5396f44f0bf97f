package beanstalk

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

const (
	mostReserves = 64   // in one write
	mostUnread   = 1024 // replies to deletes that may wait for the next Receive
	soonPause    = 100 * time.Millisecond
	closeWait    = time.Second
)

// consumer is a bus.Consumer with a TCP connection of its own.
//
// It reads replies in the order in which they are owed. When a context ends
// while a reserve waits at the server, the reply stays owed and the next call
// reads it: a job that arrives in between is kept for the next Receive, while
// its time to run goes on.
type consumer struct {
	c      *conn
	w      *wire
	o      bus.ConsumeOptions
	closed chan struct{}
	once   sync.Once

	busy sync.Mutex // held by each call; Close waits for it
	err  error      // why the connection is dead

	owed  []kind         // replies that are to come
	next  int            // owed[:next] have come
	asked int            // of them, how many answer a reserve or name a tube
	batch []bus.Delivery // reserved and not yet handed out
	named int            // batch[:named] have their Tube
	last  int            // size of the last batch
	held  int            // handed out, neither acknowledged nor released
	soon  bool           // the server said DEADLINE_SOON
	gone  bool           // a release came too late
}

func (c *conn) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	for _, t := range o.Tubes {
		if !validTube(t.Name) {
			return nil, badTube(t.Name)
		}
	}
	switch {
	case c.life.Err() != nil:
		return nil, bus.ErrClosed
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	w, err := c.take(ctx)
	if err == nil {
		if err = w.watch(ctx, c.d.answer, o.Tubes); err != nil {
			c.drop(w)
		}
	}
	switch {
	case err == nil:
	case c.life.Err() != nil:
		return nil, bus.ErrClosed
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, err
	}
	n := &consumer{c: c, w: w, o: o, closed: make(chan struct{})}
	c.mu.Lock()
	c.consumers[n] = struct{}{}
	c.mu.Unlock()
	if c.life.Err() != nil {
		n.Close()
		return nil, bus.ErrClosed
	}
	return n, nil
}

// watch makes tubes the ones that reserves look into.
func (w *wire) watch(ctx context.Context, limit time.Duration, tubes []bus.Tube) error {
	defer w.until(ctx, limit)()
	lines := len(tubes)
	for _, t := range tubes {
		w.command("watch ", t.Name)
	}
	if !slices.ContainsFunc(tubes, func(t bus.Tube) bool { return t.Name == "default" }) {
		w.command("ignore default")
		lines++
	}
	err := w.flush()
	for range lines {
		if err == nil {
			_, err = w.expect(watching, 0)
		}
	}
	return w.explain(ctx, err)
}

func (n *consumer) Receive(ctx context.Context, most int) ([]bus.Delivery, error) {
	most = max(most, 1)
	n.busy.Lock()
	defer n.busy.Unlock()
	for {
		if err := n.usable(ctx); err != nil {
			return nil, err
		}
		if len(n.batch) > 0 && n.named == len(n.batch) {
			return n.hand(most), nil
		}
		if n.asked == 0 {
			n.ask(ctx, most)
		}
		if err := n.settle(ctx); err != nil {
			return nil, err
		}
		if n.soon && len(n.batch) == 0 {
			n.pause(ctx)
		}
	}
}

// hand gives out the batch, or the first most of it.
func (n *consumer) hand(most int) []bus.Delivery {
	ds := n.batch
	n.batch = nil
	if len(ds) > most {
		ds, n.batch = ds[:most:most], ds[most:]
	}
	n.named = len(n.batch)
	n.last = len(ds)
	n.held += len(ds)
	return ds
}

// ask writes the next commands: for the tubes of the batch where there are
// several; else one reserve that waits, and as many that do not as the last
// batch makes us expect.
func (n *consumer) ask(ctx context.Context, most int) {
	if len(n.batch) > 0 {
		for _, d := range n.batch[n.named:] {
			n.w.commandID("stats-job ", d.ID, "")
			n.owe(ok)
			n.asked++
		}
		return
	}
	wait := n.c.d.reserve
	if n.held > 0 {
		// Nothing that is sent behind a waiting reserve is read: what is held
		// may be acknowledged when this ctx has ended.
		wait = time.Second
	}
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline))
	}
	n.soon = false
	n.asked = min(most, n.last*3/2+1, mostReserves)
	for i := range n.asked {
		if i == 0 {
			n.w.command("reserve-with-timeout ", seconds(max(wait, time.Second)))
		} else {
			n.w.command("reserve-with-timeout 0")
		}
		n.owe(reserved)
	}
}

func (n *consumer) Ack(ctx context.Context, ds ...bus.Delivery) error {
	n.busy.Lock()
	defer n.busy.Unlock()
	if err := n.usable(ctx); err != nil {
		return err
	}
	own := n.command(ds, "delete ", "", deleted)
	var err error
	if len(n.owed)-n.next > mostUnread {
		err = n.settle(ctx)
	} else {
		// The replies are read by the next call.
		err = n.call(ctx, n.w.flush)
	}
	if err == nil && own < len(ds) {
		err = bus.ErrGone
	}
	return err
}

func (n *consumer) Release(ctx context.Context, delay time.Duration, ds ...bus.Delivery) error {
	n.busy.Lock()
	defer n.busy.Unlock()
	if err := n.usable(ctx); err != nil {
		return err
	}
	n.gone = false
	own := n.command(ds, "release ", " 1 "+seconds(delay), released)
	err := n.settle(ctx)
	if err == nil && (n.gone || own < len(ds)) {
		err = bus.ErrGone
	}
	return err
}

// Age asks over the connection that is not the consumer's, where nothing waits
// in front.
func (n *consumer) Age(ctx context.Context, d bus.Delivery) (time.Duration, error) {
	n.busy.Lock()
	err := n.usable(ctx)
	n.busy.Unlock()
	if err != nil {
		return 0, err
	}
	if d.Ref != n {
		return 0, bus.ErrGone
	}
	var st stats
	err = n.c.exchange(ctx, func(w *wire) (err error) {
		st, err = w.job(d.ID)
		return err
	})
	if err == nil && st == nil {
		err = bus.ErrGone
	}
	return st.seconds("age"), err
}

func (n *consumer) Close() error {
	n.once.Do(func() {
		close(n.closed)
		n.w.interrupt(true)
		n.busy.Lock()
		defer n.busy.Unlock()
		if n.err == nil && slices.Contains(n.owed[n.next:], deleted) {
			n.drain()
		}
		n.c.mu.Lock()
		delete(n.c.consumers, n)
		n.c.mu.Unlock()
		n.c.drop(n.w)
	})
	return nil
}

// drain sees to it that the server has read what was acknowledged last: if we
// close while it still writes to us, the system may throw away what it has not
// read. The end of our stream also ends a reserve that waits.
func (n *consumer) drain() {
	n.w.nc.SetDeadline(time.Now().Add(min(n.c.d.answer, closeWait)))
	if n.w.flush() != nil {
		return
	}
	if nc, ok := n.w.nc.(*net.TCPConn); ok && nc.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, nc) // until the server closes, or the deadline
	}
}

// usable says why a call cannot begin.
func (n *consumer) usable(ctx context.Context) error {
	select {
	case <-n.closed:
		return bus.ErrClosed
	default:
	}
	if n.err != nil {
		return n.err
	}
	return ctx.Err()
}

// command writes a line for each of ds that is this consumer's, and returns
// how many those are.
func (n *consumer) command(ds []bus.Delivery, word, rest string, k kind) (own int) {
	for i := range ds {
		if ds[i].Ref == any(n) {
			n.w.commandID(word, ds[i].ID, rest)
			n.owe(k)
			own++
		}
	}
	n.held = max(n.held-own, 0)
	return own
}

func (n *consumer) owe(k kind) {
	if n.next > 0 && n.next == len(n.owed) {
		n.owed, n.next = n.owed[:0], 0
	}
	n.owed = append(n.owed, k)
}

// settle sends what is to be sent and reads all replies that are owed.
func (n *consumer) settle(ctx context.Context) error {
	return n.call(ctx, func() error {
		if err := n.w.flush(); err != nil {
			return err
		}
		for n.next < len(n.owed) {
			if err := n.read(n.owed[n.next]); err != nil {
				return err
			}
			n.next++
		}
		return nil
	})
}

// call does f, which talks to the server and goes on where it was when it is
// called again. Only an end of ctx leaves the connection usable.
func (n *consumer) call(ctx context.Context, f func() error) error {
	limit := n.c.d.answer
	if n.asked > 0 {
		limit += n.c.d.reserve + time.Second // seconds are rounded up
	}
	disarm := n.w.until(ctx, limit)
	err := f()
	disarm()
	if err == nil {
		return nil
	}
	select {
	case <-n.closed:
		return bus.ErrClosed
	default:
	}
	interrupted := ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded)
	if err = n.w.explain(ctx, err); !interrupted {
		n.err = err
	}
	return err
}

// read reads the reply to a command that expects one of kind k.
func (n *consumer) read(k kind) error {
	most := n.o.MaxBody
	if k == ok {
		most = maxStats
	}
	r, err := n.w.reply(most)
	if err != nil {
		return err
	}
	switch {
	case k == reserved && r.kind == reserved:
		n.asked--
		if n.batch == nil {
			n.batch = make([]bus.Delivery, 0, n.asked+1)
		}
		d := bus.Delivery{ID: r.id, Body: r.body, Size: r.size, Ref: n}
		if len(n.o.Tubes) == 1 {
			d.Tube = n.o.Tubes[0].Name
			n.named++
		}
		n.batch = append(n.batch, d)
	case k == reserved && (r.kind == timedOut || r.kind == deadlineSoon):
		n.asked--
		n.soon = n.soon || r.kind == deadlineSoon
	case k == ok && r.kind == ok:
		n.asked--
		n.batch[n.named].Tube = parseStats(r.body)["tube"]
		n.named++
	case k == ok && r.kind == notFound: // its time to run is over, and somebody else was quicker
		n.asked--
		n.batch = slices.Delete(n.batch, n.named, n.named+1)
	case k == deleted && (r.kind == deleted || r.kind == notFound):
	case k == released && r.kind == released:
	case k == released && r.kind == notFound:
		n.gone = true
	default:
		return r.unexpected()
	}
	return nil
}

// pause lets a job that we hold come near the end of its time to run: the
// server answers every reserve in its last second at once.
func (n *consumer) pause(ctx context.Context) {
	t := time.NewTimer(soonPause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-n.closed:
	}
}
