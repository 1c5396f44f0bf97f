package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
)

const (
	pullExpires   = 30 * time.Second // of a request that nothing comes for
	pullGrace     = 5 * time.Second  // then it is taken for lost
	maxAckPending = 1 << 16          // of all consumers of a tube together
	forgotten     = 30 * time.Second // a mailbox without a consumer, by the server
)

// pull is one tube of a consumer, and the request for messages that the server
// has from it. What follows the blank line is under consumer.mu.
type pull struct {
	consumer *consumer
	tube     string
	place    place
	stream   *stream
	here     *nats.Subscription

	sub      *nats.Subscription // takes what comes; nil when nothing may
	inbox    string             // of sub; request n is answered to inbox + n
	asked    int                // number of the latest request
	open     int                // messages that it still waits for
	got      int                // messages that it brought
	once     bool               // the server ends it when it has nothing more
	crowded  bool               // other consumers wait for more than there is
	gone     time.Time          // since when the server has no consumer; zero: it has
	expires  time.Time          // of it; in a cluster, when its server is taken for dead
	answered string             // ack subject that was last answered
	past     *nats.Subscription // of before a rewind: what it still brings comes again
}

// serverConsumer is the configuration of the server's side.
func serverConsumer(p place) jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		Name:          p.consumer,
		Description:   description,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       AckWait,
		MaxDeliver:    -1,
		MaxAckPending: maxAckPending,
		FilterSubject: p.subject,
		// What is in the stream has not been acknowledged: this state need not
		// outlive the server, nor cost it writes.
		MemoryStorage: true,
	}
	if p.kind == bus.Mailbox {
		cfg.InactiveThreshold = forgotten
	} else {
		cfg.Durable = p.consumer
	}
	return cfg
}

// open makes the server's consumer of a tube if it is not there. The error is
// not yet the connection's.
func (k *consumer) open(ctx context.Context, tube string, at place) (*pull, error) {
	s, err := k.conn.stream(ctx, at)
	if err != nil {
		return nil, err
	}
	if err := k.conn.takeOver(ctx, s, at); err != nil {
		return nil, err
	}
	if err := k.conn.makeConsumer(ctx, s, at); err != nil {
		return nil, err
	}
	here, err := k.conn.nc.Subscribe(at.here(), func(m *nats.Msg) { _ = m.Respond(nil) })
	if err != nil {
		return nil, err
	}
	return &pull{consumer: k, tube: tube, place: at, stream: s, here: here}, nil
}

// takeOver has a queue's messages that were delivered to a reader that is gone
// come again at once and in their place: the server would keep them until
// AckWait is over, while those behind them overtake. With its consumer the
// server forgets what it has delivered. One that somebody reads, and one that is
// not as it is made here, stay as they are.
func (c *conn) takeOver(ctx context.Context, s *stream, at place) error {
	if at.kind != bus.Queue || s.js.CachedInfo().Config.Retention != jetstream.WorkQueuePolicy {
		return nil
	}
	_, err := c.forget(ctx, s, at, 0)
	return err
}

// forget has the server forget its consumer, if it has delivered something that
// is not acknowledged and no more than readers read the tube.
func (c *conn) forget(ctx context.Context, s *stream, at place, readers int) (forgot bool, err error) {
	var old jetstream.Consumer
	err = c.persist(ctx, func(ctx context.Context) (err error) {
		old, err = s.js.Consumer(ctx, at.consumer)
		return err
	})
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	info := old.CachedInfo()
	if info.NumAckPending == 0 || info.Config.Description != serverConsumer(at).Description {
		return false, nil
	}
	if n, err := c.present(ctx, at); n > readers || err != nil {
		return false, err
	}
	err = c.persist(ctx, func(ctx context.Context) error { return s.js.DeleteConsumer(ctx, at.consumer) })
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return true, nil
	}
	return err == nil, err
}

// rewindTimeout bounds what a rewind waits for the server: the connection is lost
// then, and what was to be given back comes again by itself a moment later.
const rewindTimeout = AckWait - time.Second

// rewind gives back all that was delivered from the tubes of ds, for the server
// to begin at the first message again: it would deliver what is given back one
// by one behind everything that was given back before. Where somebody may still
// acknowledge something else it does nothing: that word would be lost.
func (k *consumer) rewind(ctx context.Context, ds []bus.Delivery) error {
	soon, cancel := context.WithTimeout(ctx, rewindTimeout)
	defer cancel()
	defer k.conn.Guard(soon)()
	for _, p := range k.pulls { // they do not change after Consume
		if p.place.kind != bus.Queue || p.stream.js.CachedInfo().Config.Retention != jetstream.WorkQueuePolicy ||
			!slices.ContainsFunc(ds, func(d bus.Delivery) bool { return d.Tube == p.tube }) {
			continue
		}
		k.mu.Lock()
		if k.owes(p, ds) {
			k.mu.Unlock()
			continue
		}
		p.past = p.sub
		p.cancel()
		k.mu.Unlock()
		if err := p.acknowledged(soon); err != nil {
			return k.conn.call(ctx, "giving messages back", err)
		}
		forgot, err := k.conn.forget(soon, p.stream, p.place, 1)
		if err != nil {
			return k.conn.call(ctx, "giving messages back", err)
		}
		k.mu.Lock()
		if forgot {
			p.gone = time.Now()
			k.ready = slices.DeleteFunc(k.ready, func(d *delivery) bool { return d.pull == p })
		} else {
			p.past = nil
		}
		k.mu.Unlock()
	}
	return nil
}

// ask makes a request for up to max messages of each tube that has none open,
// and says when to come back if nothing happens. k.mu is held.
func (k *consumer) ask(max int) (time.Duration, error) {
	again := k.conn.pullExpires
	for _, p := range k.pulls {
		if !p.gone.IsZero() {
			again = 0
			continue
		}
		if left := time.Until(p.expires); p.open > 0 && left > 0 {
			again = min(again, left)
			continue
		}
		if err := p.ask(max); err != nil {
			return 0, err
		}
	}
	return again, nil
}

func (p *pull) ask(max int) error {
	nc := p.consumer.conn.nc
	if p.sub == nil {
		p.inbox = nc.NewInbox() + "."
		sub, err := nc.Subscribe(p.inbox+"*", p.came)
		if err != nil {
			return err
		}
		p.sub = sub
		if err := sub.SetPendingLimits(-1, -1); err != nil { // requests bound what comes
			return err
		}
	}
	// With both of expires and no_wait the server waits for the first message
	// only. It does not take such a request while others wait.
	p.once, p.crowded = !p.crowded, false
	p.asked++
	p.open, p.got = max, 0
	expires, beat := p.consumer.conn.pullExpires, time.Duration(0)
	p.expires = time.Now().Add(expires + pullGrace)
	if p.consumer.conn.cluster != "" {
		beat = heartbeat
		p.heard()
	}
	body, err := json.Marshal(struct {
		Batch   int           `json:"batch"`
		Expires time.Duration `json:"expires"`
		NoWait  bool          `json:"no_wait,omitempty"`
		Beat    time.Duration `json:"idle_heartbeat,omitempty"`
	}{max, expires, p.once, beat})
	if err != nil {
		return err
	}
	return nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+p.place.stream+"."+p.place.consumer, p.request(), body)
}

func (p *pull) request() string { return fmt.Sprintf("%s%d", p.inbox, p.asked) }

// heard notes that the server is at work on the request. consumer.mu is held.
func (p *pull) heard() {
	if p.consumer.conn.cluster != "" {
		p.expires = time.Now().Add(unheard)
	}
}

// gathering reports whether a batch has begun to come and its end has not.
func (p *pull) gathering() bool { return p.once && p.open > 0 && p.got > 0 }

// came is called by nats.go for each message, and each word about a request.
func (p *pull) came(m *nats.Msg) {
	k := p.consumer
	k.mu.Lock()
	defer k.mu.Unlock()
	code, text := status(m)
	switch {
	case m.Sub == p.past && p.past != nil:
		return
	case code == "":
		if m.Sub == p.sub {
			p.open, p.got = max(0, p.open-1), p.got+1
			p.heard()
		}
		d := &delivery{consumer: k, pull: p, msg: m, came: time.Now()}
		if m.Subject != p.place.subject { // a keeper, where an administrator's consumer has no filter
			_ = k.answer(d, "+ACK")
			return
		}
		if !k.busy {
			_ = k.answer(d, "-NAK") // came too late, and goes to somebody else
			return
		}
		k.ready = append(k.ready, d)
		if len(k.ready) > 1 && p.gathering() {
			return // Receive was woken for the first, and waits for the end of the batch
		}
	case m.Subject != p.request():
		return // about one that is over
	case code == "100":
		p.heard()
		return
	case code == "404", code == "408", code == "409" && (strings.Contains(text, "leadership change") || strings.Contains(text, "server shutdown")):
		p.open = 0
		p.crowded = strings.Contains(text, "requests pending")
	case code == "503", code == "409" && strings.Contains(text, "consumer deleted"):
		// The server has restarted within a cluster, or nobody has read the
		// mailbox for a while, or somebody else has and closed it.
		p.open, p.gone = 0, time.Now()
	default:
		k.err = fmt.Errorf("reading %s: the server says %s %s", p.tube, code, text)
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// status returns what the server says about a request, "" for a message.
func status(m *nats.Msg) (code, text string) {
	if len(m.Data) > 0 || len(m.Header) == 0 {
		return "", ""
	}
	return m.Header.Get("Status"), strings.ToLower(m.Header.Get("Description"))
}

// cancel ends the request: the server sends nothing to a subject that nobody
// listens to. What is on its way still comes. consumer.mu is held.
func (p *pull) cancel() (done <-chan struct{}) {
	ended, end := context.WithCancel(context.Background())
	if p.sub == nil {
		end()
		return ended.Done()
	}
	p.sub.SetClosedHandler(func(string) { end() })
	if err := p.sub.Drain(); err != nil { // the connection is lost
		end()
	}
	p.sub, p.open = nil, 0
	return ended.Done()
}

// owes reports whether something from p is handed out beside ds. k.mu is held.
func (k *consumer) owes(p *pull, ds []bus.Delivery) bool {
	for d := range k.unacked {
		if d.pull == p && time.Since(d.came) < AckWait && !slices.ContainsFunc(ds, func(bd bus.Delivery) bool { return bd.Ref == d }) {
			return true
		}
	}
	return false
}

// acknowledged returns when the server has seen to what was acknowledged.
func (p *pull) acknowledged(ctx context.Context) error {
	k := p.consumer
	k.mu.Lock()
	answered := p.answered
	k.mu.Unlock()
	if answered == "" {
		return nil
	}
	// The reply to this comes when those before it are done.
	_, err := k.conn.nc.RequestWithContext(ctx, answered, []byte("+WPI"))
	if err != nil && !errors.Is(err, nats.ErrNoResponders) { // else it is forgotten already
		return fmt.Errorf("waiting for the acknowledgements: %w", err)
	}
	return nil
}

// close returns when the server has seen to what was acknowledged, and makes it
// forget the consumer of a mailbox.
func (p *pull) close(ctx context.Context) error {
	k := p.consumer
	k.mu.Lock()
	done := p.cancel()
	k.mu.Unlock()
	select {
	case <-done:
	case <-k.conn.Dead():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for what is on its way: %w", ctx.Err())
	}
	if err := p.here.Unsubscribe(); err != nil {
		return err
	}
	if err := p.acknowledged(ctx); err != nil {
		return err
	}
	if p.place.kind != bus.Mailbox {
		return nil
	}
	err := k.conn.persist(ctx, func(ctx context.Context) error { return p.stream.js.DeleteConsumer(ctx, p.place.consumer) })
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	return err
}
