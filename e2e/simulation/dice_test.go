package simulation

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// dice are the random decisions of one schedule. Each kind of decision has a
// stream of its own, so that one more of the one kind changes none of another.
type dice struct {
	seed uint64
	mu   sync.Mutex
	kind map[string]*rand.Rand
}

func newDice(seed uint64) *dice { return &dice{seed: seed, kind: make(map[string]*rand.Rand)} }

func (d *dice) with(kind string, f func(*rand.Rand)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.kind[kind]
	if r == nil {
		h := fnv.New64a()
		h.Write([]byte(kind))
		r = rand.New(rand.NewPCG(d.seed, h.Sum64()))
		d.kind[kind] = r
	}
	f(r)
}

// n is a number in [0, n).
func (d *dice) n(kind string, n int) (v int) {
	d.with(kind, func(r *rand.Rand) { v = r.IntN(n) })
	return v
}

// between is a number in [low, high].
func (d *dice) between(kind string, low, high int) int { return low + d.n(kind, high-low+1) }

// chance is true with probability p.
func (d *dice) chance(kind string, p float64) (yes bool) {
	d.with(kind, func(r *rand.Rand) { yes = r.Float64() < p })
	return yes
}

// upTo is a time in [0, most].
func (d *dice) upTo(kind string, most time.Duration) (t time.Duration) {
	d.with(kind, func(r *rand.Rand) { t = time.Duration(r.Int64N(int64(most) + 1)) })
	return t
}

// pick is one of list.
func pick[T any](d *dice, kind string, list ...T) T { return list[d.n(kind, len(list))] }

// text is n bytes that look like output.
func (d *dice) text(kind string, n int) []byte {
	b := make([]byte, n)
	d.with(kind, func(r *rand.Rand) {
		for i := range b {
			b[i] = byte('a' + r.IntN(26))
			if i%61 == 60 {
				b[i] = '\n'
			}
		}
	})
	return b
}
