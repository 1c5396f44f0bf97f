package zeromq

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

// consumer asks for messages when somebody wants them, and for no more than
// that: nothing lies here that others could have.
type consumer struct {
	conn *conn
	o    bus.ConsumeOptions
	quit chan struct{}

	mu     sync.Mutex
	held   map[uint64]bool // handed out, not acknowledged
	closed bool
}

// ref is the Ref of a bus.Delivery.
type ref struct {
	consumer *consumer
	put      time.Time
}

// Consume asks the hub whether it is there.
func (c *conn) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	for _, t := range o.Tubes {
		if _, err := c.stat(ctx, t.Name); err != nil {
			return nil, err
		}
	}
	return &consumer{conn: c, o: o, quit: make(chan struct{}), held: map[uint64]bool{}}, nil
}

func (k *consumer) usable() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return bus.ErrClosed
	}
	return k.conn.failed()
}

// Receive waits for messages. Those that cross with the end of ctx go back.
func (k *consumer) Receive(ctx context.Context, max int) ([]bus.Delivery, error) {
	for {
		if err := k.usable(); err != nil {
			return nil, err
		}
		args := [][]byte{
			strconv.AppendInt(nil, waitMax.Milliseconds(), 10), strconv.AppendInt(nil, int64(max), 10), strconv.AppendInt(nil, int64(k.o.MaxBody), 10),
		}
		for _, t := range k.o.Tubes {
			args = append(args, []byte(t.Name))
		}
		call, err := k.conn.begin(ctx, "GET", args...)
		if err != nil {
			return nil, err
		}
		call.quit = k.quit
		m, err := k.conn.wait(ctx, call)
		if err != nil {
			m = k.conn.leave(call, k.late)
		}
		if m == nil {
			k.conn.tell("STOP", []byte(call.ref))
			if usable := k.usable(); usable != nil {
				return nil, usable
			}
			return nil, ctx.Err()
		}
		if err := k.conn.refusal(m); err != nil {
			return nil, err
		}
		ds, err := k.deliveries(m)
		if err != nil {
			return nil, k.conn.fail(err)
		}
		if len(ds) > 0 {
			return ds, nil
		}
	}
}

// late gives back what has come when nobody waited for it any more.
func (k *consumer) late(m message) {
	if string(m[0]) != "MSG" {
		return
	}
	var ids []uint64
	for i := 2; i < len(m); i += 5 {
		id, _ := strconv.ParseUint(string(m[i]), 10, 64)
		ids = append(ids, id)
	}
	k.conn.giveBack(ids)
}

// deliveries reads an answer to GET: tube, number, age, size and body of each.
func (k *consumer) deliveries(m message) ([]bus.Delivery, error) {
	if string(m[0]) != "MSG" {
		return nil, nil
	}
	m = m[1:]
	if len(m)%5 != 0 {
		return nil, fmt.Errorf("%d frames in place of messages: %w", len(m), errFrame)
	}
	now := time.Now()
	ds := make([]bus.Delivery, 0, len(m)/5)
	for ; len(m) > 0; m = m[5:] {
		var n [3]int64
		for i := range n {
			var err error
			if n[i], err = strconv.ParseInt(string(m[1+i]), 10, 64); err != nil {
				return nil, fmt.Errorf("%q in place of a number: %w", printable(m[1+i]), errFrame)
			}
		}
		d := bus.Delivery{Tube: string(m[0]), ID: uint64(n[0]), Body: m[4], Size: int(n[2]), Ref: &ref{k, now.Add(-time.Duration(n[1]) * time.Millisecond)}}
		if len(d.Body) != d.Size {
			d.Body = nil
		}
		ds = append(ds, d)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range ds {
		k.held[d.ID] = true
	}
	if k.closed {
		k.backAll()
		return nil, nil
	}
	return ds, nil
}

// Ack tells the hub, and does not wait for its word.
func (k *consumer) Ack(ctx context.Context, ds ...bus.Delivery) error {
	return k.settle(ctx, "ACK", nil, ds)
}

// Release has the messages delivered again. The delay passes at the hub.
func (k *consumer) Release(ctx context.Context, delay time.Duration, ds ...bus.Delivery) error {
	return k.settle(ctx, "BACK", message{strconv.AppendInt(nil, max(0, delay).Milliseconds(), 10)}, ds)
}

func (k *consumer) settle(ctx context.Context, verb string, args message, ds []bus.Delivery) error {
	if err := k.usable(); err != nil {
		return err
	}
	var gone error
	ids := make([]uint64, 0, len(ds))
	k.mu.Lock()
	for _, d := range ds {
		if r, ok := d.Ref.(*ref); !ok || r.consumer != k || !k.held[d.ID] {
			gone = bus.ErrGone
			continue
		}
		delete(k.held, d.ID)
		ids = append(ids, d.ID)
	}
	k.mu.Unlock()
	for some := range slices.Chunk(ids, framesMax/2) {
		call, err := k.conn.begin(ctx, verb, slices.Concat(args, numbers(some))...)
		if err != nil {
			k.keep(ids)
			return err
		}
		k.conn.leave(call, ignore)
	}
	return gone
}

// keep has ids among what is held. Those that the hub has settled are none of
// ours to it.
func (k *consumer) keep(ids []uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		k.held[id] = true
	}
}

// Age is what the hub said, and the time since.
func (k *consumer) Age(_ context.Context, d bus.Delivery) (time.Duration, error) {
	r, ok := d.Ref.(*ref)
	if !ok || r.consumer != k {
		return 0, bus.ErrGone
	}
	if err := k.usable(); err != nil {
		return 0, err
	}
	return max(0, time.Since(r.put)), nil
}

// Close gives back what was not acknowledged.
func (k *consumer) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		k.closed = true
		close(k.quit)
		k.backAll()
	}
	return nil
}

// backAll gives back what is held. k.mu is held.
func (k *consumer) backAll() {
	k.conn.giveBack(slices.Collect(maps.Keys(k.held)))
	clear(k.held)
}
