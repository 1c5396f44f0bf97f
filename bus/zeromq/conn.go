package zeromq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

const (
	connQueue    = 4 << 20                // bytes that wait to be written
	closeTimeout = time.Second            // bounds Close where the agent does not answer
	stopTimeout  = 250 * time.Millisecond // how long a Put that is over waits for the word that nothing was taken
	fullPause    = 50 * time.Millisecond  // before a message is sent again that there was no room for
)

// conn is a connection to a hub. It does not come back: whatever breaks it
// sets err once and closes dead.
type conn struct {
	link *link
	addr string
	dead chan struct{}

	mu    sync.Mutex
	err   error // why dead
	calls map[string]*call
	last  uint64
}

// A call is a request that waits for its answer.
type call struct {
	ref  string
	quit <-chan struct{} // ends the waiting too; may be nil
	done chan message    // gets the answer, without ref
	late func(m message) // has it instead, where nobody waits for it any more; under conn.mu
}

func newConn(p *pipe, addr string) *conn {
	c := &conn{link: newLink(p, connQueue), addr: addr, dead: make(chan struct{}), calls: map[string]*call{}}
	go c.read()
	return c
}

// read hands out answers until the connection ends.
func (c *conn) read() {
	for {
		m, err := c.link.receive()
		if err != nil {
			_ = c.fail(fmt.Errorf("connection to the agent at %s lost: %w", c.addr, err))
			return
		}
		if len(m) > 1 && len(m[0]) == 0 {
			m = m[1:]
		}
		if len(m) < 2 {
			continue
		}
		c.mu.Lock()
		k := c.calls[string(m[1])]
		delete(c.calls, string(m[1]))
		var late func(message)
		if k != nil {
			late = k.late
			k.done <- append(message{m[0]}, m[2:]...)
		}
		c.mu.Unlock()
		if late != nil {
			late(<-k.done)
		}
	}
}

// fail ends the connection for err, unless it has ended already, and returns
// why it has.
func (c *conn) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.dead)
		c.link.close()
	}
	return c.err
}

func (c *conn) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// begin sends a request.
func (c *conn) begin(ctx context.Context, verb string, args ...[]byte) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return nil, c.err
	}
	c.last++
	k := &call{ref: strconv.FormatUint(c.last, 10), done: make(chan message, 1)}
	c.calls[k.ref] = k
	c.mu.Unlock()
	if err := c.link.sendWait(ctx, append(text(verb, k.ref), args...)); err != nil {
		c.mu.Lock()
		delete(c.calls, k.ref)
		c.mu.Unlock()
		if dead := c.failed(); dead != nil {
			err = dead
		}
		return nil, err
	}
	return k, nil
}

// tell sends a request whose answer nobody waits for, where there is room.
func (c *conn) tell(verb string, args ...[]byte) {
	c.link.send(append(text(verb, "-"), args...))
}

// giveBack returns messages by their numbers.
func (c *conn) giveBack(ids []uint64) {
	for some := range slices.Chunk(ids, framesMax/2) {
		c.tell("BACK", append(text("0"), numbers(some)...)...)
	}
}

func numbers(ids []uint64) message {
	m := make(message, len(ids))
	for i, id := range ids {
		m[i] = strconv.AppendUint(nil, id, 10)
	}
	return m
}

// wait returns the answer to k.
func (c *conn) wait(ctx context.Context, k *call) (message, error) {
	select {
	case m := <-k.done:
		return m, nil
	default:
	}
	select {
	case m := <-k.done:
		return m, nil
	case <-c.dead:
		return nil, c.failed()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-k.quit:
		return nil, bus.ErrClosed
	}
}

// leave ends the waiting for k. If its answer has come meanwhile, it is
// returned; else late gets it.
func (c *conn) leave(k *call, late func(message)) message {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case m := <-k.done:
		return m
	default:
	}
	k.late = late
	return nil
}

func ignore(message) {}

// ask sends a request and waits for the answer.
func (c *conn) ask(ctx context.Context, verb string, args ...[]byte) (message, error) {
	k, err := c.begin(ctx, verb, args...)
	if err != nil {
		return nil, err
	}
	m, err := c.wait(ctx, k)
	if err != nil {
		if m = c.leave(k, ignore); m == nil {
			return nil, err
		}
	}
	return m, c.refusal(m)
}

// refusal is the error of an ERR, nil of any other answer.
func (c *conn) refusal(m message) error {
	if string(m[0]) != "ERR" || len(m) < 3 {
		return nil
	}
	text := printable(m[2])
	switch string(m[1]) {
	case codeLarge:
		return fmt.Errorf("%w: %s", bus.ErrTooLarge, text)
	case codeTube:
		return fmt.Errorf("%w: %s", bus.ErrBadTube, text)
	}
	return fmt.Errorf("the agent at %s: %s", c.addr, text)
}

// Put hands messages over. One for a queue is confirmed when an agent has
// acknowledged it.
func (c *conn) Put(ctx context.Context, ms ...bus.Message) []bus.Result {
	rs := make([]bus.Result, len(ms))
	calls := make([]*call, len(ms))
	for i, m := range ms {
		switch {
		case !validTube(m.Tube.Name):
			rs[i].Err = fmt.Errorf("%w: %q", bus.ErrBadTube, m.Tube.Name)
		case len(m.Body) > maxBody:
			rs[i].Err = fmt.Errorf("%w: %d bytes, at most %d", bus.ErrTooLarge, len(m.Body), maxBody)
		default:
			calls[i], rs[i].Err = c.put(ctx, m)
		}
	}
	var stopped context.Context // begins when ctx has ended
	for i, k := range calls {
		for k != nil {
			answer, err := c.wait(ctx, k)
			if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				if stopped == nil {
					var cancel context.CancelFunc
					stopped, cancel = context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
					defer cancel()
					c.stop(ms[i:], calls[i:])
				}
				rs[i] = c.stopped(ctx, stopped, ms[i], k)
				break
			}
			if err == nil && string(answer[0]) == "ERR" && string(answer[1]) == codeFull {
				k, rs[i].Err = c.again(ctx, ms[i])
				continue
			}
			rs[i] = c.result(answer, err)
			break
		}
	}
	return rs
}

func (c *conn) put(ctx context.Context, m bus.Message) (*call, error) {
	verb := "PUT"
	if m.Tube.Kind == bus.Mailbox {
		verb = "MAIL"
	}
	ttl := int64(0)
	if m.TTL > 0 {
		ttl = max(1, m.TTL.Milliseconds())
	}
	return c.begin(ctx, verb, []byte(m.Tube.Name), strconv.AppendInt(nil, ttl, 10), m.Body)
}

func (c *conn) result(answer message, err error) bus.Result {
	if err == nil {
		err = c.refusal(answer)
	}
	if err != nil {
		return bus.Result{Err: err}
	}
	r := bus.Result{}
	if len(answer) > 1 {
		r.ID, _ = strconv.ParseUint(string(answer[1]), 10, 64)
	}
	return r
}

// again puts m, which there was no room for, after a pause.
func (c *conn) again(ctx context.Context, m bus.Message) (*call, error) {
	t := time.NewTimer(fullPause)
	defer t.Stop()
	select {
	case <-t.C:
		k, err := c.put(ctx, m)
		if err != nil && ctx.Err() != nil {
			err = c.notTaken(ctx)
		}
		return k, err
	case <-c.dead:
		return nil, c.failed()
	case <-ctx.Done():
		return nil, c.notTaken(ctx)
	}
}

// stop withdraws the messages for queues.
func (c *conn) stop(ms []bus.Message, calls []*call) {
	for i, k := range calls {
		if k != nil && ms[i].Tube.Kind == bus.Queue {
			c.tell("STOP", []byte(k.ref))
		}
	}
}

// stopped finds out what became of a message whose ctx has ended.
func (c *conn) stopped(ctx, grace context.Context, m bus.Message, k *call) bus.Result {
	var answer message
	if m.Tube.Kind == bus.Queue {
		answer, _ = c.wait(grace, k)
	}
	if answer == nil {
		if answer = c.leave(k, ignore); answer == nil {
			return bus.Result{Err: fmt.Errorf("waiting for the agent at %s: %w", c.addr, ctx.Err())}
		}
	}
	if string(answer[0]) == "ERR" && (string(answer[1]) == codeWithdrawn || string(answer[1]) == codeFull) {
		return bus.Result{Err: c.notTaken(ctx)}
	}
	return c.result(answer, nil)
}

// notTaken is the error of a message that nobody has taken, nor will.
func (c *conn) notTaken(ctx context.Context) error {
	return cbsdmq.Errorf(cbsdmq.CodeUnreachable, "", "the agent at %s has not taken it: %w", c.addr, ctx.Err()).
		WithHint("it does not serve this pool, or its backlog is full; nothing was left there, so it can be sent again")
}

// Expire does nothing: a hub knows TTLs.
func (c *conn) Expire(context.Context, string, uint64, time.Duration) error { return nil }

// Sweep does nothing: a hub knows TTLs.
func (c *conn) Sweep(context.Context, func(string) bool, time.Duration) (int, error) { return 0, nil }

// Inspect asks the hub.
func (c *conn) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	s, err := c.stat(ctx, t.Name)
	return s.Info, err
}

type stat struct {
	bus.Info
	tubes int // how many the hub has
}

func (c *conn) stat(ctx context.Context, tube string) (stat, error) {
	if !validTube(tube) {
		return stat{}, fmt.Errorf("%w: %q", bus.ErrBadTube, tube)
	}
	m, err := c.ask(ctx, "ASK", []byte(tube))
	if err != nil {
		return stat{}, fmt.Errorf("asking for %s: %w", tube, err)
	}
	if len(m) < 5 {
		return stat{}, fmt.Errorf("asking for %s: the answer has %d frames", tube, len(m))
	}
	s := stat{Info: bus.Info{
		Server:  printable(m[1]),
		Durable: true, // a job that is confirmed is in the journal, with its replies
		MaxBody: maxBody,
	}}
	s.Ready, _ = strconv.Atoi(string(m[2]))
	s.tubes, _ = strconv.Atoi(string(m[4]))
	s.Consumers = -1 // those that wait at this moment are known
	if n, _ := strconv.Atoi(string(m[3])); n > 0 {
		s.Consumers = n
	}
	return s, nil
}

// Close gives back what the consumers hold and ends the connection.
func (c *conn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	// When this is answered, all before it has been done.
	_, _ = c.ask(ctx, "ASK", []byte("close"))
	_ = c.fail(bus.ErrClosed)
	return nil
}
