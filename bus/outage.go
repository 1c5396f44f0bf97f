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
}

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
	o.last = err
	o.failures++
	wait := o.ceiling
	if !permanent {
		wait = backoff(o.failures, min(o.ceiling, often), rand.Float64())
	}
	now := time.Now()
	o.next = now.Add(wait)
	if o.since.IsZero() {
		o.since = now
		o.count++
		o.log.Warn("broker out of reach", "err", err)
	}
}

// worked records that the broker did something over a connection of epoch.
func (o *outage) worked(epoch int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if epoch != o.count || o.failures == 0 {
		return
	}
	o.failures, o.next, o.last = 0, time.Time{}, nil
	if !o.since.IsZero() {
		o.log.Info("broker back", "took", time.Since(o.since).Round(time.Millisecond))
		o.since = time.Time{}
	}
}
