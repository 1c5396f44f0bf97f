package runner

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// Errors of the client.
var (
	// ErrNoRunner is returned by Dial where no runner serves the directory.
	ErrNoRunner = errors.New("no runner")
	// ErrClosed is returned once the client has been closed.
	ErrClosed = errors.New("runner: client is closed")
)

// A Client is one agent's connection to a runner. Its methods may be called
// from several goroutines.
//
// When the connection breaks every method returns the error; what was on its
// way is then not known. Dial again and List: the mark tells which starts
// arrived.
type Client struct {
	conn           net.Conn
	runnerID, boot string
	pid            int
	version        string

	sending sync.Mutex
	out     []byte        // frames that the writer has not taken yet
	acks    []Key         // not in out yet
	ticking bool          // a timer runs that will put them there
	closing bool          // the writer ends when it has written all
	due     chan struct{} // holds an element while the writer has something to do
	dead    chan struct{} // closed with the first error
	written chan struct{} // closed when the writer has ended

	mu          sync.Mutex
	more        chan struct{} // holds an element while events or err are to be seen
	room        *sync.Cond    // events were taken
	events      []Event
	waiting     map[uint64]chan *decoder // of requests
	lastRequest uint64
	err         error
}

const (
	// writeTimeout ends a connection to a runner that does not read.
	writeTimeout = 30 * time.Second
	// ackDelay is how long an acknowledgement may wait for something to be sent
	// with, and ackMax how many may.
	ackDelay = 10 * time.Millisecond
	ackMax   = 256
	// maxPending is how many events wait for Next before the client stops
	// reading.
	maxPending = 1 << 16
)

// RunnerID is that of the runner at the other end; it is new with every start
// of a runner.
func (c *Client) RunnerID() string { return c.runnerID }

// PID is the runner's pid.
func (c *Client) PID() int { return c.pid }

// Version is that of the runner's program.
func (c *Client) Version() string { return c.version }

// Start sends starts, in their order, of pools that List gave to c. It does not
// wait, not even until they are written: Events tell what became of each.
func (c *Client) Start(starts ...Start) error {
	return c.send(frameStart, func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(len(starts)))
		for i := range starts {
			b = appendStart(b, &starts[i])
		}
		return b
	})
}

// Ack says that the end of the runs is in the journal and their output is not
// needed any more, or that the journal knows that they were refused. It does not
// wait, and is sent together with what comes next, or soon. Keys that the runner
// does not know, or that have not ended, are ignored.
func (c *Client) Ack(keys ...Key) error {
	if err := c.failure(); err != nil {
		return err
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	c.acks = append(c.acks, keys...)
	if len(c.acks) >= ackMax {
		c.packAcks()
	} else if !c.ticking {
		c.ticking = true
		time.AfterFunc(ackDelay, func() {
			c.sending.Lock()
			defer c.sending.Unlock()
			c.ticking = false
			c.packAcks()
		})
	}
	return nil
}

// List returns what the runner knows of a pool, and makes c the connection that
// gets the pool's events from then on, in place of any other.
func (c *Client) List(ctx context.Context, pool string) (Snapshot, error) {
	d, err := c.request(ctx, frameList, func(b []byte) []byte { return appendString(b, pool) })
	if err != nil {
		return Snapshot{}, fmt.Errorf("listing runs: %w", err)
	}
	s := Snapshot{RunnerID: c.runnerID, BootID: c.boot, PID: c.pid, Mark: d.key(), Runs: d.events()}
	return s, d.err
}

// Kill sends sig to the process group of a run: to the command and to what it
// started, but not to those that made sessions or groups of their own. Once the
// command itself has ended the rest of its group is reached only as long as it
// can be told from strangers.
//
// It returns an error where the run is not known, or nothing of it is left.
func (c *Client) Kill(ctx context.Context, key Key, sig syscall.Signal) error {
	_, err := c.request(ctx, frameKill, func(b []byte) []byte {
		return binary.AppendVarint(appendKey(b, key), int64(sig))
	})
	if err != nil {
		return fmt.Errorf("sending %v: %w", sig, err)
	}
	return nil
}

// Output returns what a run has written so far.
func (c *Client) Output(ctx context.Context, key Key) (stdout, stderr File, err error) {
	d, err := c.request(ctx, frameOutput, func(b []byte) []byte { return appendKey(b, key) })
	if err != nil {
		return File{}, File{}, fmt.Errorf("asking for the output: %w", err)
	}
	stdout, stderr = d.file(), d.file()
	return stdout, stderr, d.err
}

// Next waits for events and returns all that have come, in their order.
func (c *Client) Next(ctx context.Context) ([]Event, error) {
	for {
		c.mu.Lock()
		events, err := c.events, c.err
		c.events = nil
		c.room.Broadcast()
		c.mu.Unlock()
		if len(events) > 0 {
			return events, nil
		}
		if err != nil {
			c.wake() // for the next call
			return nil, err
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close ends the connection when all is written. Commands go on.
func (c *Client) Close() error {
	c.sending.Lock()
	c.packAcks()
	c.closing = true
	c.sending.Unlock()
	poke(c.due)
	<-c.written
	c.fail(ErrClosed)
	return nil
}

func (c *Client) wake() { poke(c.more) }

// poke makes sure that ch, which has room for one element, holds one.
func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// fail ends the connection with its first error.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.dead)
	c.conn.Close()
	for _, ch := range c.waiting {
		close(ch)
	}
	c.waiting = nil
	c.room.Broadcast()
	c.wake()
}

func (c *Client) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// send leaves one frame to the writer.
func (c *Client) send(typ byte, fields func([]byte) []byte) error {
	if err := c.failure(); err != nil {
		return err
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	c.packAcks()
	at := len(c.out)
	c.out = endFrame(fields(beginFrame(c.out, typ)), at)
	poke(c.due)
	if n := len(c.out) - at; n-4 > maxFrame {
		c.out = c.out[:at]
		return fmt.Errorf("a message of %d bytes to the runner is too long", n)
	}
	return nil
}

// packAcks leaves the acknowledgements that wait to the writer. The caller
// holds c.sending.
func (c *Client) packAcks() {
	if len(c.acks) == 0 {
		return
	}
	at := len(c.out)
	b := binary.AppendUvarint(beginFrame(c.out, frameAck), uint64(len(c.acks)))
	for _, k := range c.acks {
		b = appendKey(b, k)
	}
	c.out, c.acks = endFrame(b, at), c.acks[:0]
	poke(c.due)
}

// write is the writer: it sends the frames that the others leave in c.out. For
// them to write would be to wait, since the kernel likes to run a reader that
// it wakes at once, and in place of the writer.
func (c *Client) write() {
	defer close(c.written)
	var b []byte
	for {
		c.sending.Lock()
		b, c.out = c.out, b[:0]
		closing := c.closing
		c.sending.Unlock()
		if len(b) > 0 {
			c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := c.conn.Write(b); err != nil {
				c.fail(fmt.Errorf("writing to the runner: %w", err))
				return
			}
			if cap(b) > 1<<20 {
				b = nil
			}
			continue
		}
		if closing {
			return
		}
		select {
		case <-c.due:
		case <-c.dead:
			return
		}
	}
}

// request sends a frame and returns the fields of its answer.
func (c *Client) request(ctx context.Context, typ byte, fields func([]byte) []byte) (*decoder, error) {
	ch := make(chan *decoder, 1)
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.lastRequest++
	id := c.lastRequest
	c.waiting[id] = ch
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	if err := c.send(typ, func(b []byte) []byte { return fields(binary.AppendUvarint(b, id)) }); err != nil {
		return nil, err
	}
	select {
	case d, ok := <-ch:
		if !ok {
			return nil, c.failure()
		}
		return d, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *Client) read(r *bufio.Reader) {
	var buf []byte
	for {
		typ, body, next, err := readFrame(r, buf)
		if err != nil {
			c.fail(fmt.Errorf("reading from the runner: %w", err))
			return
		}
		buf = next
		d := decode(body)
		switch typ {
		case frameEvents:
			events := d.events()
			c.mu.Lock()
			for len(c.events) > maxPending && c.err == nil {
				c.room.Wait()
			}
			c.events = append(c.events, events...)
			c.mu.Unlock()
			c.wake()
		case frameResult:
			id := d.uint()
			var answer decoder
			if text := d.string(); text != "" {
				answer.err = errors.New(text)
			}
			c.answer(id, &answer)
		case frameSnapshot, frameFiles:
			id := d.uint()
			c.answer(id, &decoder{s: d.s, err: d.err})
		default:
			d.err = fmt.Errorf("unknown frame %q", typ)
		}
		if d.err != nil {
			c.fail(fmt.Errorf("reading from the runner: %w", d.err))
			return
		}
	}
}

func (c *Client) answer(id uint64, d *decoder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch := c.waiting[id]; ch != nil {
		ch <- d
		delete(c.waiting, id)
	}
}
