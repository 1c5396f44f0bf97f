package mem

import (
	"slices"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

// msg is a stored message.
type msg struct {
	tube    string
	id      uint64
	body    []byte
	put     time.Time
	expires time.Time // zero = never
	due     time.Time // when a delayed one is ready
}

// tube is one queue. Broker.mu guards it.
type tube struct {
	ready    []*msg // from head on, by id
	head     int
	delayed  []*msg // by due
	reserved int
	watchers []*consumer
}

func (t *tube) len() int { return len(t.ready) - t.head }

// push adds m where its id belongs: at the end, unless it has been handed out
// before.
func (t *tube) push(m *msg) {
	if n := len(t.ready); n == t.head || t.ready[n-1].id < m.id {
		if n == cap(t.ready) && t.head > n/2 { // half of it is free
			t.ready = append(t.ready[:0], t.ready[t.head:]...)
			clear(t.ready[len(t.ready):cap(t.ready)])
			t.head = 0
		}
		t.ready = append(t.ready, m)
		return
	}
	i, _ := slices.BinarySearchFunc(t.ready[t.head:], m.id, byID)
	t.ready = slices.Insert(t.ready, t.head+i, m)
}

func byID(m *msg, id uint64) int {
	switch {
	case m.id < id:
		return -1
	case m.id > id:
		return 1
	}
	return 0
}

// pop takes the first message that is ready.
func (t *tube) pop(now time.Time) *msg {
	for t.wake(now); t.len() > 0; {
		m := t.ready[t.head]
		t.ready[t.head] = nil
		t.head++
		if t.head == len(t.ready) {
			t.ready, t.head = t.ready[:0], 0
		}
		if !m.expired(now) {
			return m
		}
	}
	return nil
}

// remove takes message id out if it is ready, and ok accepts it.
func (t *tube) remove(id uint64, ok func(*msg) bool) {
	if i, found := slices.BinarySearchFunc(t.ready[t.head:], id, byID); found && ok(t.ready[t.head+i]) {
		t.ready = slices.Delete(t.ready, t.head+i, t.head+i+1)
	}
}

func (t *tube) delay(m *msg) {
	i, _ := slices.BinarySearchFunc(t.delayed, m.due, func(m *msg, due time.Time) int { return m.due.Compare(due) })
	t.delayed = slices.Insert(t.delayed, i, m)
}

// wake makes ready what is due.
func (t *tube) wake(now time.Time) {
	n := 0
	for n < len(t.delayed) && !t.delayed[n].due.After(now) {
		t.push(t.delayed[n])
		n++
	}
	t.delayed = slices.Delete(t.delayed, 0, n)
}

func (t *tube) expire(now time.Time) {
	t.ready = slices.Delete(t.ready, 0, t.head)
	t.head = 0
	t.ready = slices.DeleteFunc(t.ready, func(m *msg) bool { return m.expired(now) })
	t.delayed = slices.DeleteFunc(t.delayed, func(m *msg) bool { return m.expired(now) })
}

func (m *msg) expired(now time.Time) bool { return !m.expires.IsZero() && !now.Before(m.expires) }

func (m *msg) delivery(c *consumer, maxBody int) bus.Delivery {
	d := bus.Delivery{Tube: m.tube, ID: m.id, Body: m.body, Size: len(m.body), Ref: c}
	if maxBody > 0 && d.Size > maxBody {
		d.Body = nil
	}
	return d
}

// notify wakes the consumers of the tube.
func (t *tube) notify() {
	for _, c := range t.watchers {
		c.poke()
	}
}
