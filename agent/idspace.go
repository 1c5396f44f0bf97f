package agent

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/journal"
)

// A broker that has lost its memory gives its ids again from the beginning. A
// reply that is still owed to an id of before would then reach a stranger. So
// whenever the broker may have been restarted, and before anything of the new
// incarnation is taken in or replied to, such addresses are given up.

// checkIDs makes sure that the addresses of e are of the broker that runs now.
// An error means that it could not be asked.
func (o *outbox) checkIDs(ctx context.Context) error {
	if o.checked.Load() == int64(o.e.Bus.Outages()) {
		return nil
	}
	if !o.lock(ctx) {
		return ctx.Err()
	}
	defer o.unlock()
	_, err := o.check(ctx)
	return err
}

// lock waits until nobody checks ids or sends replies: a check has to know of
// all that are owed. False when ctx ends.
func (o *outbox) lock(ctx context.Context) bool {
	select {
	case o.checking <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (o *outbox) unlock() { <-o.checking }

// check is checkIDs for who holds the lock. What it found is true as long as
// the bus has counted so many outages.
func (o *outbox) check(ctx context.Context) (outages int, err error) {
	outages = o.e.Bus.Outages()
	if o.checked.Load() == int64(outages) {
		return outages, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.e.Timeout)
	defer cancel()
	info, err := o.e.Bus.Inspect(ctx, bus.Tube{Name: o.e.Tube})
	if err != nil {
		return outages, err
	}
	if info.IDBase > 0 && info.Instance != "" { // else its numbers go on
		written := make(chan error, 1)
		if !o.s.post(ctx, func(l *loop) { l.incarnation(o.e, info, func(err error) { written <- err }) }) {
			return outages, ctx.Err()
		}
		select {
		case err = <-written:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err == nil {
			o.incarnation.Store(&info)
		}
	}
	if err == nil {
		o.checked.Store(int64(outages))
	}
	return outages, err
}

// incarnation notes which incarnation of a broker runs. Where it is a new one,
// addresses that were named by an older one, after ids that it may give again,
// are undeliverable.
func (l *loop) incarnation(e Endpoint, info bus.Info, done func(error)) {
	r := l.s.cfg.Journal.Reader()
	known, _, err := r.Broker(l.s.life, e.Name)
	if err != nil || known == info.Instance {
		done(err)
		return
	}
	var owed []journal.Owe
	if known != "" {
		if owed, err = r.OwedByID(l.s.life, e.Name); err != nil {
			done(err)
			return
		}
	}
	l.note(done)
	l.batch.Broker = append(l.batch.Broker, journal.Broker{Bus: e.Name, Instance: info.Instance})
	lost, space := 0, idSpace{again: true, base: info.IDBase}
	for _, o := range owed {
		if !space.stranger(o.Address, e.Prefix) {
			continue // that number is not given again
		}
		lost++
		l.batch.Sent = append(l.batch.Sent, journal.SentReply{Seq: o.Seq, Bus: e.Name, Tube: o.Address.Tube, State: journal.Undeliverable})
		l.s.out[e.Name].void(o.Seq, o.Address.Tube)
		if j := l.jobs[o.Seq]; j != nil {
			j.dropAddress(o.Address)
		}
	}
	if lost > 0 {
		l.s.log.Warn("the broker began its ids again: replies cannot be delivered, they would reach strangers",
			"bus", e.Name, "replies", lost, "hint", "`cbsdmq jobs` shows how the jobs ended")
	}
}

// An idSpace is what the ids are worth that a broker gave before.
type idSpace struct {
	outages int // as of the look, -1 before
	again   bool
	base    uint64
}

// look asks the broker again where it may have been restarted since.
func (s *idSpace) look(ctx context.Context, r journal.Reader, e Endpoint) error {
	outages := e.Bus.Outages()
	if s.outages == outages {
		return nil
	}
	known, _, err := r.Broker(ctx, e.Name)
	if err != nil {
		return err
	}
	info, err := e.Bus.Inspect(ctx, bus.Tube{Name: e.Tube})
	if err != nil {
		return fmt.Errorf("asking for the broker's ids: %w", err)
	}
	s.outages, s.base = outages, info.IDBase
	s.again = known != "" && info.IDBase > 0 && info.Instance != "" && info.Instance != known
	return nil
}

// stranger reports whether an address that is named by an id of the broker may be
// somebody else's now.
func (s idSpace) stranger(a journal.Address, prefix string) bool {
	id, err := strconv.ParseUint(strings.TrimPrefix(a.Tube, prefix), 10, 64)
	return s.again && a.BrokerID && (err != nil || id >= s.base)
}

func (j *job) dropAddress(gone journal.Address) {
	kept := j.addrs[:0:0]
	for _, a := range j.addrs {
		if a.Bus != gone.Bus || a.Tube != gone.Tube {
			kept = append(kept, a)
		}
	}
	j.addrs = kept
}

// void takes a reply out of the outbox.
func (o *outbox) void(seq int64, tube string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := o.q[:0:0]
	for _, p := range o.q {
		if p.seq != seq || p.tube != tube {
			kept = append(kept, p)
		}
	}
	o.q = kept
}
