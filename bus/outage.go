package bus

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// outage is the one state of a Bus with several connections: in reach or not,
// since when, and when to try again. It logs each change of it once.
//
// A broker that restarts breaks all connections, but an idle one finds out
// late. So outages are counted, each connection remembers the count at its
// dialling (its epoch), and what happens to a connection older than the last
// outage is no news.
type outage struct {
	log     *slog.Logger // knows bus and addr
	ceiling time.Duration

	mu       sync.Mutex
	count    int       // of outages
	since    time.Time // when the present one began; zero when there is none
	failures int       // in a row
	next     time.Time // not to be dialled before
	last     error
	refused  bool      // it is there, and does not let us in
	told     bool      // the log says that it is out of reach
	toldAt   time.Time // when it last said so
	back     time.Time // when the last outage ended
	relapses int       // outages that began just after the one before
}

// A broker may let us in and break the connection over what we ask of it, for
// want of a right, say: then it is no sooner back than out of reach. Those
// relapses are failures in a row, and beyond the first ones only logged now and
// then.
const (
	steady      = 5 * time.Second // what has worked for so long was no relapse
	mostTold    = 5               // relapses
	tellRelapse = time.Minute
)

func (o *outage) epoch() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count
}

// wait is how long the next attempt has to wait.
func (o *outage) wait() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.next.IsZero() {
		return 0
	}
	return time.Until(o.next)
}

func (o *outage) cause() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// away is the error of an outage that lasts, nil where there is none.
func (o *outage) away() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return nil
	}
	return o.last
}

// failed records that a connection of epoch broke, or could not be made.
func (o *outage) failed(epoch int, err error, permanent bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if epoch != o.count {
		return
	}
	now := time.Now()
	if o.since.IsZero() {
		o.since = now
		o.count++
		o.relapses++
		if now.Sub(o.back) > steady {
			o.relapses = 0
		}
	}
	o.last = err
	o.failures++
	wait := o.ceiling
	if !permanent {
		wait = backoff(o.failures+o.relapses, min(o.ceiling, often), rand.Float64())
	}
	o.next = now.Add(wait)
	switch {
	case o.told && (o.refused || !permanent):
		return
	case o.relapses >= mostTold && now.Sub(o.toldAt) < tellRelapse:
		return
	}
	o.told, o.toldAt, o.refused = true, now, permanent
	o.log.Warn("broker out of reach", "err", err)
}

// worked records that the broker did something over a connection of epoch.
func (o *outage) worked(epoch int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if epoch != o.count || o.failures == 0 {
		return
	}
	o.failures, o.next, o.last = 0, time.Time{}, nil
	if o.since.IsZero() {
		return
	}
	if o.told {
		o.log.Info("broker back", "took", time.Since(o.since).Round(time.Millisecond))
	}
	o.told, o.refused = false, false
	o.since, o.back = time.Time{}, time.Now()
}
