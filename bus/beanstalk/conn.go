package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// conn is a bus.Conn: a TCP connection for everything but consumers, which
// have their own. It is dialled when it is first needed, and again when a
// caller's context ended in the middle of an exchange.
type conn struct {
	d    *Driver
	turn chan struct{} // held during an exchange
	life context.Context
	end  context.CancelCauseFunc
	w    *wire // under turn
	err  error // why the connection is dead; under turn

	mu        sync.Mutex
	spare     *wire // from Dial, for whoever needs one first
	open      map[*wire]struct{}
	consumers map[*consumer]struct{}
}

func newConn(d *Driver, w *wire) *conn {
	c := &conn{
		d: d, turn: make(chan struct{}, 1), spare: w,
		open: map[*wire]struct{}{w: {}}, consumers: map[*consumer]struct{}{},
	}
	c.life, c.end = context.WithCancelCause(context.Background())
	return c
}

// connect dials and asks for the server's limits, which also shows whether it
// is alive and a beanstalkd.
func (d *Driver) connect(ctx context.Context) (*wire, error) {
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp", d.addr)
	if err != nil {
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
			<-ctx.Done() // the dialer looks at the clock, and may be a little earlier
		}
		return nil, err
	}
	w := &wire{nc: nc, buf: make([]byte, 16<<10), used: "default"}
	defer w.until(ctx, d.answer)()
	w.out = append(w.out, "stats\r\n"...)
	st, err := w.stats()
	if err == nil {
		w.limit, err = st.maxJob()
	}
	if err != nil {
		nc.Close()
		if g, ok := errors.AsType[*garbage](err); ok {
			// No bad configuration to a client: what is there may go, and the broker come.
			return nil, &bus.Permanent{Err: cbsdmq.Errorf(cbsdmq.CodeUnreachable, "beanstalkd.uri", "%w", g).
				WithHint("something else listens on %s; beanstalkd's usual port is %s", d.addr, defaultPort)}
		}
		return nil, fmt.Errorf("connecting to %s: %w", d.addr, w.explain(ctx, err))
	}
	return w, nil
}

// take returns the connection from Dial if nobody has it yet, or a new one.
func (c *conn) take(ctx context.Context) (*wire, error) {
	c.mu.Lock()
	w := c.spare
	c.spare = nil
	c.mu.Unlock()
	if w != nil {
		return w, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	w, err := c.d.connect(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() != nil {
		w.nc.Close()
		return nil, bus.ErrClosed
	}
	c.open[w] = struct{}{}
	return w, nil
}

// drop closes a connection.
func (c *conn) drop(w *wire) {
	c.mu.Lock()
	delete(c.open, w)
	c.mu.Unlock()
	w.nc.Close()
}

// exchange lets f send commands and read all their replies. An error of f ends
// the TCP connection; unless it is ctx that ended, also the conn.
func (c *conn) exchange(ctx context.Context, f func(*wire) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return ctx.Err()
	case <-c.life.Done():
		return bus.ErrClosed
	}
	switch {
	case c.life.Err() != nil:
		return bus.ErrClosed
	case c.err != nil:
		return c.err
	}
	var err error
	if c.w == nil {
		if c.w, err = c.take(ctx); err != nil {
			return c.broken(ctx, err)
		}
	}
	disarm := c.w.until(ctx, c.d.answer)
	err = f(c.w)
	disarm()
	if err == nil {
		return nil
	}
	err = c.w.explain(ctx, err)
	c.drop(c.w)
	c.w = nil
	return c.broken(ctx, err)
}

func (c *conn) broken(ctx context.Context, err error) error {
	switch {
	case c.life.Err() != nil:
		return bus.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	}
	c.err = err
	return err
}

func (c *conn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	rs := make([]bus.Result, len(ms))
	done := 0
	err := c.exchange(ctx, func(w *wire) error {
		for done < len(ms) {
			n, err := w.put(ms[done:], rs[done:], c.d.ttr)
			done += n
			if err != nil {
				return err
			}
		}
		return nil
	})
	for i := done; i < len(rs); i++ {
		if rs[i].Err == nil {
			rs[i].Err = err
		}
	}
	return rs
}

// What is put before its replies are read: enough to keep the server busy, so
// little that both sides' buffers hold it.
const (
	windowJobs  = 64
	windowBytes = 128 << 10
)

// put puts as many of ms as make a window, and returns how many have a final
// result.
func (w *wire) put(ms []bus.Message, rs []bus.Result, ttr time.Duration) (done int, err error) {
	var uses [windowJobs]bool
	n, used := 0, w.used
	for ; n < min(len(ms), windowJobs) && (n == 0 || len(w.out)+len(ms[n].Body) < windowBytes); n++ {
		m := &ms[n]
		if rs[n].Err = w.refuse(m); rs[n].Err != nil {
			continue
		}
		if m.Tube.Name != used {
			used, uses[n] = m.Tube.Name, true
			w.command("use ", used)
		}
		w.command("put 1 0 ", seconds(ttr), " ", strconv.Itoa(len(m.Body)))
		w.out = append(append(w.out, m.Body...), crlf...)
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	var stray []uint64 // in a wrong tube
	var wrong error
	for i := range n {
		if rs[i].Err != nil {
			continue
		}
		if uses[i] {
			r, err := w.reply(0)
			if err != nil {
				return i, err
			}
			if wrong = nil; r.kind != using {
				wrong = r.unexpected()
			}
		}
		r, err := w.reply(0)
		switch {
		case err != nil:
			return i, err
		case r.kind == inserted && wrong != nil:
			rs[i].Err = fmt.Errorf("using tube %s: %w", ms[i].Tube.Name, wrong)
			stray = append(stray, r.id)
		case r.kind == inserted:
			rs[i].ID = r.id
		case r.kind == tooBig:
			rs[i].Err = tooLarge(len(ms[i].Body), w.limit)
		case r.full():
			rs[i].Err = fmt.Errorf("%w: %w", bus.ErrFull, r.unexpected())
			return i + 1, r.unexpected() // of those behind it nothing is known
		default:
			return i, r.unexpected()
		}
	}
	if stray != nil {
		return n, errors.Join(wrong, w.deleteAll(stray))
	}
	w.used = used
	return n, nil
}

// refuse says why m cannot be put.
func (w *wire) refuse(m *bus.Message) error {
	switch {
	case !validTube(m.Tube.Name):
		return badTube(m.Tube.Name)
	case len(m.Body) > w.limit:
		return tooLarge(len(m.Body), w.limit)
	}
	return nil
}

func badTube(name string) error { return fmt.Errorf("%.210q: %w", name, bus.ErrBadTube) }

func tooLarge(size, limit int) error {
	return fmt.Errorf("%d bytes, the limit is %d: %w", size, limit, bus.ErrTooLarge)
}

// deleteAll removes jobs and waits until they are.
func (w *wire) deleteAll(ids []uint64) error {
	for _, id := range ids {
		w.commandID("delete ", id, "")
	}
	if err := w.flush(); err != nil {
		return err
	}
	for range ids {
		if _, err := w.expect(deleted, 0); err != nil {
			return err
		}
	}
	return nil
}

// command appends a line to what flush sends.
func (w *wire) command(words ...string) {
	for _, s := range words {
		w.out = append(w.out, s...)
	}
	w.out = append(w.out, crlf...)
}

func (w *wire) commandID(word string, id uint64, rest string) {
	w.out = append(w.out, word...)
	w.out = strconv.AppendUint(w.out, id, 10)
	w.out = append(append(w.out, rest...), crlf...)
}

// seconds rounds up: beanstalkd has no fractions.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// Expire looks at the job before it deletes it. That is safe without reserving
// it: a connection sees one incarnation of the server, where an id keeps its
// tube and gets no younger, and delete does not find what somebody else has
// reserved in the meantime.
func (c *conn) Expire(ctx context.Context, tube string, id uint64, age time.Duration) error {
	return c.exchange(ctx, func(w *wire) error {
		st, err := w.job(id)
		if err != nil || st == nil {
			return err
		}
		if st["tube"] != tube || st["state"] != "ready" || st.seconds("age") < age {
			return nil
		}
		return w.deleteAll([]uint64{id})
	})
}

func (c *conn) Close() error {
	c.end(bus.ErrClosed)
	c.mu.Lock()
	consumers := make([]*consumer, 0, len(c.consumers))
	for n := range c.consumers {
		consumers = append(consumers, n)
	}
	c.mu.Unlock()
	for _, n := range consumers {
		n.Close()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.open {
		w.nc.Close()
		delete(c.open, w)
	}
	return nil
}
