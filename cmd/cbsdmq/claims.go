package main

import (
	"maps"
	"sync"
	"time"
)

const (
	claimTime = 10 * time.Minute // after which a claim that nobody released is void
	claimsMax = 10_000
)

// claims are the names of guests that pools are making: until a guest is made,
// no file of CBSD has its name.
type claims struct {
	mu sync.Mutex
	by map[string]claim // by guest
}

type claim struct {
	pool string
	at   time.Time
}

// claim takes the name of a guest for a pool, or says which other has it.
func (c *claims) claim(pool, guest string) (other string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if has, ok := c.by[guest]; ok && has.pool != pool && time.Since(has.at) < claimTime {
		return has.pool
	}
	if len(c.by) >= claimsMax {
		maps.DeleteFunc(c.by, func(_ string, has claim) bool { return time.Since(has.at) >= claimTime })
	}
	if c.by == nil {
		c.by = make(map[string]claim)
	}
	if len(c.by) < claimsMax {
		c.by[guest] = claim{pool, time.Now()}
	}
	return ""
}

// release gives the name back.
func (c *claims) release(pool, guest string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[guest].pool == pool {
		delete(c.by, guest)
	}
}
