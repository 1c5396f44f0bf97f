package client

import (
	"slices"
	"strings"
	"sync"

	"github.com/cbsd/cbsdmq"
)

// Bounds of what is kept for a caller who does not come, or is slow. A dropped
// piece is asked for again by its offset.
const (
	maxPieces = 64
	maxEnded  = 256
)

// An inbox holds the replies to one own job until they are taken.
type inbox struct {
	id     string // ULID
	key    string
	stream bool
	body   []byte // as it was submitted

	wake chan struct{} // has an element when there is something new

	ids []string // under Client.mu: the keys of Client.jobs that lead here

	mu sync.Mutex
	news
	followed bool
}

// news is what came into an inbox.
type news struct {
	pieces []cbsdmq.Reply
	missed int64 // end of the last piece for which there was no room
	final  *cbsdmq.Reply
	err    error
}

// take empties the inbox. The final reply stays.
func (b *inbox) take() news {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.news
	b.pieces = nil
	return n
}

// put adds a reply. Of the final ones, which are equal, the first is kept.
func (b *inbox) put(r cbsdmq.Reply) {
	b.mu.Lock()
	switch {
	case r.Final() && b.final == nil:
		b.final = &r
	case !r.Final() && len(b.pieces) < maxPieces:
		b.pieces = append(b.pieces, r)
	case !r.Final():
		b.missed = max(b.missed, end(&r))
	}
	b.mu.Unlock()
	b.poke()
}

func end(r *cbsdmq.Reply) int64 { return r.Offset + int64(len(r.Output())) }

func (b *inbox) fail(err error) {
	b.mu.Lock()
	b.err = err
	b.mu.Unlock()
	b.poke()
}

func (b *inbox) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// open reports whether the job has not ended, as far as is known here.
func (b *inbox) open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.final == nil && b.err == nil
}

// follow takes the inbox for one caller, until leave.
func (b *inbox) follow() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.followed {
		return false
	}
	b.followed = true
	return true
}

func (b *inbox) leave() {
	b.mu.Lock()
	b.followed = false
	b.mu.Unlock()
}

// add makes the inbox of a job that is about to be submitted.
func (c *Client) add(b *inbox) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lead(b, b.id)
}

// lead makes replies with this id go to b. The caller holds c.mu.
func (c *Client) lead(b *inbox, id string) {
	c.jobs[id] = b
	b.ids = append(b.ids, id)
}

// forget drops the inbox with all ids that lead to it.
func (c *Client) forget(b *inbox) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(b)
	c.ended = slices.DeleteFunc(c.ended, func(other *inbox) bool { return other == b })
}

func (c *Client) drop(b *inbox) {
	for _, id := range b.ids {
		if c.jobs[id] == b {
			delete(c.jobs, id)
		}
	}
}

// route gives a reply to the job that it belongs to. One without an id is an
// original agent's: it belongs to the only job that is on its way.
func (c *Client) route(r cbsdmq.Reply) {
	_, id, _ := strings.Cut(r.ID, "/")
	c.mu.Lock()
	b := c.jobs[id]
	var open []*inbox
	if b == nil {
		for _, other := range c.jobs {
			if (r.ID == "" || r.Key != "" && other.key == r.Key) && other.open() {
				open = append(open, other)
			}
		}
	}
	if len(open) == 1 || len(open) > 1 && r.ID != "" {
		b = open[0]
		if r.ID != "" {
			c.lead(b, id) // the key had named a job before, with this id
		}
	}
	c.mu.Unlock()
	switch {
	case b != nil:
		b.put(r)
		c.keep(b, r)
	case len(open) > 1:
		err := cbsdmq.Errorf(cbsdmq.CodeInternal, "", "%s has an original agent: it does not say which of %d jobs its reply belongs to", c.pool(), len(open)).
			WithHint("have one job at a time with an original agent")
		for _, b := range open {
			b.fail(err)
		}
	}
}

// keep bounds the results that nobody has come for: the oldest can be had by
// asking the agent.
func (c *Client) keep(b *inbox, r cbsdmq.Reply) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !r.Final() || c.jobs[b.id] != b || slices.Contains(c.ended, b) {
		return
	}
	c.ended = append(c.ended, b)
	for len(c.ended) > maxEnded {
		c.drop(c.ended[0])
		c.ended = c.ended[1:]
	}
}
