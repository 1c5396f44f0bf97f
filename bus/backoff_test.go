package bus

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		n       int
		r       float64
		ceiling time.Duration
		want    time.Duration
	}{
		{1, 0, 5 * time.Second, 25 * time.Millisecond},
		{1, 0.5, 5 * time.Second, 37500 * time.Microsecond},
		{2, 0, 5 * time.Second, 50 * time.Millisecond},
		{7, 0, 5 * time.Second, 1600 * time.Millisecond},
		{8, 0, 5 * time.Second, 2500 * time.Millisecond},
		{1000, 0, 5 * time.Second, 2500 * time.Millisecond},
		{1, 0, 10 * time.Millisecond, 5 * time.Millisecond},
	} {
		if got := backoff(c.n, c.ceiling, c.r); got != c.want {
			t.Errorf("backoff(%d, %v, %v) = %v, want %v", c.n, c.ceiling, c.r, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 1<<40).Draw(t, "n")
		ceiling := time.Duration(rapid.Int64Range(1e6, 1e12).Draw(t, "ceiling"))
		r := rapid.Float64Range(0, 0.999).Draw(t, "r")
		got := backoff(n, ceiling, r)
		if got > ceiling || got < min(firstWait, ceiling)/2 {
			t.Errorf("backoff(%d, %v, %v) = %v", n, ceiling, r, got)
		}
		if next := backoff(n+1, ceiling, r); next < got {
			t.Errorf("attempt %d waits %v, the next one %v", n, got, next)
		}
	})
}
