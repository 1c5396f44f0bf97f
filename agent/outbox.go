package agent

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/failpoint"
	"github.com/cbsd/cbsdmq/journal"
)

// An outbox publishes the last replies of one endpoint until the broker has
// confirmed each. The journal knows what is owed, so the outbox may forget
// bodies when it grows long.
type outbox struct {
	s   *Server
	e   Endpoint
	mu  sync.Mutex
	q   []parcel
	has chan struct{} // holds an element while q is not empty

	checking chan struct{} // the lock of who checks ids or sends replies
	checked  atomic.Int64  // outages of the bus when ids were checked; -1 = never

	// incarnation is what is known of the broker that runs now, nil where its ids
	// never begin again.
	incarnation atomic.Pointer[bus.Info]
}

// A parcel is one reply for one address.
type parcel struct {
	seq  int64
	tube string
	body []byte // nil: in the journal
	max  int    // of the body, where the broker takes less than replyMax
}

const (
	outboxBodies = 256 // bodies kept in memory; past it they are read again
	outboxBatch  = 64
	replyMin     = 1 << 10 // a broker that takes less than this cannot be used
)

func newOutbox(s *Server, e Endpoint) *outbox {
	o := &outbox{s: s, e: e, has: make(chan struct{}, 1), checking: make(chan struct{}, 1)}
	o.checked.Store(-1)
	return o
}

// owe sends the last reply of a job to addresses. body is nil where it has to
// be read from the journal.
func (s *Server) owe(seq int64, addrs []journal.Address, body []byte) {
	for _, a := range addrs {
		if o := s.out[a.Bus]; o != nil {
			o.add(parcel{seq: seq, tube: a.Tube, body: body})
		}
		// A bus that the pool is not served on any more gets its replies when
		// it is again.
	}
}

func (o *outbox) add(ps ...parcel) {
	o.mu.Lock()
	for _, p := range ps {
		if len(o.q) >= outboxBodies {
			p.body = nil
		}
		o.q = append(o.q, p)
	}
	o.mu.Unlock()
	select {
	case o.has <- struct{}{}:
	default:
	}
}

// wait returns when there is something to send; false when ctx ends.
func (o *outbox) wait(ctx context.Context) bool {
	for {
		o.mu.Lock()
		n := len(o.q)
		o.mu.Unlock()
		if n > 0 {
			return ctx.Err() == nil
		}
		select {
		case <-o.has:
		case <-ctx.Done():
			return false
		}
	}
}

// size is how many replies are owed.
func (o *outbox) size() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.q)
}

func (o *outbox) take() []parcel {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(len(o.q), outboxBatch)
	ps := o.q[:n:n]
	o.q = o.q[n:]
	if len(o.q) == 0 {
		o.q = nil
	}
	return ps
}

func (o *outbox) run(ctx context.Context) {
	for attempt := 0; o.wait(ctx); {
		if o.send(ctx) {
			attempt = 0
			continue
		}
		attempt++
		if !sleep(ctx, pause(attempt)) {
			return
		}
	}
}

// send publishes the first parcels, and reports whether that went on.
// Those that were not confirmed go to the end.
func (o *outbox) send(ctx context.Context) bool {
	if !o.lock(ctx) {
		return false
	}
	defer o.unlock()
	outages, err := o.check(ctx)
	if err != nil {
		return false
	}
	ps := o.take()
	again := o.publish(ctx, outages, ps)
	if len(again) > 0 {
		o.add(again...)
	}
	return len(again) == 0 || len(again) < len(ps)
}

// publish puts parcels on the broker that was there at so many outages, and
// returns those that it did not confirm.
func (o *outbox) publish(ctx context.Context, outages int, ps []parcel) (again []parcel) {
	var ms []bus.Message
	sent := ps[:0:0]
	for _, p := range ps {
		if p.body == nil {
			body, err := o.s.stored(ctx, p)
			if errors.Is(err, errNoRow) {
				o.s.log.Error("a reply is not in the journal any more", "seq", p.seq)
				continue
			}
			if err != nil {
				o.s.log.Error("a reply cannot be read from the journal", "seq", p.seq, "err", err)
				again = append(again, p)
				continue
			}
			p.body = body
		}
		ms = append(ms, bus.Message{Tube: bus.Tube{Name: p.tube, Kind: bus.Mailbox}, Body: p.body, TTL: o.s.cfg.ReplyTTL})
		sent = append(sent, p)
	}
	if len(ms) == 0 {
		return again
	}
	putCtx, cancel := context.WithTimeout(ctx, o.e.Timeout)
	defer cancel()
	var done []journal.SentReply
	for i, r := range o.e.Bus.PutDuring(putCtx, outages, ms...) {
		p := sent[i]
		switch {
		case r.Err == nil:
			done = append(done, journal.SentReply{Seq: p.seq, Bus: o.e.Name, Tube: p.tube, PutID: r.ID, State: journal.Sent})
		case errors.Is(r.Err, bus.ErrTooLarge) && len(p.body) > replyMin:
			p.max, p.body = max(len(p.body)/2, replyMin), nil
			again = append(again, p)
		default:
			again = append(again, p)
		}
	}
	if len(done) > 0 {
		failpoint.Hit(failpoint.Replied)
		// Not posted under ctx: what the broker has must not be sent again.
		o.s.post(o.s.life, func(l *loop) { l.sent(done) })
	}
	return again
}

var errNoRow = errors.New("not in the journal")

// stored makes the last reply of a job from the journal.
func (s *Server) stored(ctx context.Context, p parcel) ([]byte, error) {
	r := s.cfg.Journal.Reader()
	row, err := r.BySeq(ctx, p.seq)
	if err != nil {
		return nil, err
	}
	if row == nil {
		return nil, errNoRow
	}
	tail, err := s.outputTail(ctx, row)
	if err != nil {
		return nil, err
	}
	most := replyMax
	if p.max > 0 {
		most = p.max
	}
	return s.storedReply(row, tail, most), nil
}

// outputTail reads the end of an ended job's stdout, as much as a reply takes.
func (s *Server) outputTail(ctx context.Context, row *journal.Job) ([]byte, error) {
	if row.OutSize == 0 {
		return nil, nil
	}
	f, err := s.cfg.Journal.Reader().Output(ctx, row.Seq)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(max(0, size-journal.InlineOutput), io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// sent notes confirmed replies. They ride along with the next commit: if they
// are lost, a reply is sent twice.
func (l *loop) sent(done []journal.SentReply) {
	if len(l.lazy) == 0 {
		l.lazySince = time.Now()
	}
	l.lazy = append(l.lazy, done...)
	if len(l.lazy) >= lazyMax {
		l.flushSent()
	}
}

func (l *loop) flushSent() {
	l.batch.Sent = append(l.batch.Sent, l.lazy...)
	l.lazy = nil
}
