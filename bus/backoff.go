package bus

import "time"

const (
	firstWait = 50 * time.Millisecond

	// often: a broker that is away is tried at least so often, so that work goes on
	// within two seconds of its return. One that refuses us is asked more rarely.
	often = 1500 * time.Millisecond
)

// backoff is how long to wait before attempt n to connect (1, 2, ...): twice as
// long each time, up to the ceiling. r in [0, 1) spreads the clients of one
// broker over the second half of that time, so that they do not come back in
// step.
func backoff(n int, ceiling time.Duration, r float64) time.Duration {
	d := ceiling
	if n <= 32 {
		d = min(ceiling, firstWait<<max(n-1, 0))
	}
	return d/2 + time.Duration(r*float64(d/2))
}
