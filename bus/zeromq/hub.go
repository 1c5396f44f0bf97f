package zeromq

import (
	"container/list"
	"fmt"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

// Bounds of what a hub keeps in memory.
const (
	mailMax    = 64 << 20 // bytes of replies; above it those that were put first go
	queueMax   = 64 << 20 // bytes of jobs that wait for the agent; above it a sender has to wait
	batchMax   = 4 << 20  // bytes of one answer
	mostMax    = 256      // messages of one answer
	perMessage = 256      // what a message takes beside its body
	sweepEvery = 10 * time.Second
)

// A hub is what the agent has in place of a broker. A job stays with it until
// a consumer has acknowledged it, which confirms it to its sender; a reply until
// it was read, or its time is over. All of it is in memory: a job that was
// confirmed is in its agent's journal.
type hub struct {
	name string

	mu    sync.Mutex
	tubes map[string]*tube
	last  uint64    // number of the last message
	mail  list.List // of *parcel: replies that nobody has, the oldest first
	sizes struct{ mail, queue int }
}

// tube is one queue or mailbox. It is there as long as it holds something or
// somebody waits for it.
type tube struct {
	name    string
	ready   list.List // of *parcel, by number
	waiting list.List // of *get, the first one first
}

// A parcel is a message that the hub keeps.
type parcel struct {
	tube    string
	id      uint64
	body    []byte
	put     time.Time
	expires time.Time // zero = never
	queued  bool      // a job: its sender waits for its acknowledgement

	sender *peer  // of a job; nil when it does not wait any more
	ref    string // the sender's name for it

	ready  *list.Element // in tube.ready
	mailed *list.Element // in hub.mail
	holder *peer
	later  *time.Timer // gives it back
}

func (m *parcel) size() int { return len(m.body) + perMessage }

func (m *parcel) expired(now time.Time) bool { return !m.expires.IsZero() && !now.Before(m.expires) }

// A get is a peer that waits for messages.
type get struct {
	peer  *peer
	ref   string
	most  int
	max   int // of a body; 0 = no limit
	tubes []string
	in    []*list.Element // of waiting, by tubes
	timer *time.Timer
}

func newHub(name string) *hub {
	// Numbers are never given twice, whenever the hub was started before.
	return &hub{name: name, tubes: map[string]*tube{}, last: uint64(time.Now().UnixMicro())}
}

// All that follows is called with h.mu held.

func (h *hub) tube(name string) *tube {
	t := h.tubes[name]
	if t == nil {
		t = &tube{name: name}
		h.tubes[name] = t
	}
	return t
}

func (h *hub) forget(t *tube) {
	if t.ready.Len() == 0 && t.waiting.Len() == 0 {
		delete(h.tubes, t.name)
	}
}

// put takes a message in; sender is nil for a reply.
func (h *hub) put(m *parcel) {
	h.last++
	m.id, m.put = h.last, time.Now()
	h.account(m, m.size())
	h.offer(m)
	for h.sizes.mail > mailMax && h.mail.Len() > 0 {
		h.drop(h.mail.Front().Value.(*parcel), "")
	}
}

func (h *hub) account(m *parcel, n int) {
	if m.queued {
		h.sizes.queue += n
	} else {
		h.sizes.mail += n
	}
}

// offer puts m where its number belongs, and gives it to whoever waits.
func (h *hub) offer(m *parcel) {
	t := h.tube(m.tube)
	at := t.ready.Back()
	for at != nil && at.Value.(*parcel).id > m.id {
		at = at.Prev()
	}
	if at == nil {
		m.ready = t.ready.PushFront(m)
	} else {
		m.ready = t.ready.InsertAfter(m, at)
	}
	if !m.queued {
		m.mailed = h.mail.PushBack(m)
	}
	for e := t.waiting.Front(); e != nil; e = e.Next() {
		if g := e.Value.(*get); g.may(m) {
			h.fill(g)
			return
		}
	}
}

// take makes m nobody's.
func (h *hub) take(m *parcel) {
	if m.ready != nil {
		t := h.tubes[m.tube]
		t.ready.Remove(m.ready)
		m.ready = nil
		h.forget(t)
	}
	if m.mailed != nil {
		h.mail.Remove(m.mailed)
		m.mailed = nil
	}
	if m.later != nil {
		m.later.Stop()
		m.later = nil
	}
	if m.holder != nil {
		delete(m.holder.held, m.id)
		m.holder = nil
	}
}

// drop forgets m and tells its sender, if it waits: with code "" that it is
// confirmed, else that it is not.
func (h *hub) drop(m *parcel, code string) {
	h.take(m)
	h.account(m, -m.size())
	if m.sender == nil {
		return
	}
	delete(m.sender.puts, m.ref)
	if code == "" {
		m.sender.answer("OK", m.ref, fmt.Sprint(m.id))
	} else {
		m.sender.answer("ERR", m.ref, code, reasons[code])
	}
	m.sender = nil
}

// Codes of an ERR.
const (
	codeBad       = "bad"
	codeTube      = "tube"
	codeLarge     = "large"
	codeFull      = "full"
	codeWithdrawn = "withdrawn"
	codeExpired   = "expired"
	codeDenied    = "denied"
)

var reasons = map[string]string{
	codeBad:       "not a request of this protocol",
	codeTube:      "not a name for a tube",
	codeLarge:     "larger than the agent takes",
	codeFull:      "too much waits for the agent already",
	codeWithdrawn: "the agent had not taken it",
	codeExpired:   "nobody had taken it in its time",
	codeDenied:    "only the agent's own key may do that",
}

// may reports whether g's peer is to have m: jobs are for agents.
func (g *get) may(m *parcel) bool { return g.peer.trusted || !m.queued }

// fill answers g with what is ready, if anything is.
func (h *hub) fill(g *get) bool {
	now := time.Now()
	answer := text("MSG", g.ref)
	size, n, room := 0, 0, true
	for i := range g.tubes {
		t := h.tubes[g.tubes[(i+g.peer.turn)%len(g.tubes)]]
		if t == nil {
			continue
		}
		for e := t.ready.Front(); e != nil && n < g.most && room; {
			m := e.Value.(*parcel)
			e = e.Next()
			if m.expired(now) {
				h.drop(m, codeExpired)
				continue
			}
			body := m.body
			if g.max > 0 && len(body) > g.max {
				body = nil
			}
			if room = n == 0 || size+len(body) <= batchMax; !room || !g.may(m) {
				continue
			}
			h.take(m)
			m.holder = g.peer
			g.peer.held[m.id] = m
			n, size = n+1, size+len(body)
			answer = append(answer, text(m.tube, fmt.Sprint(m.id), fmt.Sprint(now.Sub(m.put).Milliseconds()), fmt.Sprint(len(m.body)))...)
			answer = append(answer, body)
		}
	}
	if n == 0 {
		return false
	}
	g.peer.turn++
	h.leave(g)
	g.peer.send(answer)
	return true
}

// wait has g answered when something comes, or after a time.
func (h *hub) wait(g *get, d time.Duration) {
	for _, name := range g.tubes {
		t := h.tube(name)
		g.in = append(g.in, t.waiting.PushBack(g))
	}
	g.peer.gets[g.ref] = g
	g.timer = time.AfterFunc(d, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.end(g)
	})
}

// end answers g with nothing, if it waits.
func (h *hub) end(g *get) {
	if g.peer.gets[g.ref] == g {
		h.leave(g)
		g.peer.answer("OK", g.ref)
	}
}

// leave ends g's waiting.
func (h *hub) leave(g *get) {
	for i, e := range g.in {
		if t := h.tubes[g.tubes[i]]; t != nil {
			t.waiting.Remove(e)
			h.forget(t)
		}
	}
	g.in = nil
	if g.timer != nil {
		g.timer.Stop()
		delete(g.peer.gets, g.ref)
	}
}

// back gives m, that a peer has, to others, unless its sender has left.
func (h *hub) back(m *parcel, delay time.Duration) {
	h.take(m)
	switch {
	case m.queued && m.sender == nil:
		h.drop(m, codeWithdrawn)
	case delay <= 0:
		h.offer(m)
	default:
		m.later = time.AfterFunc(delay, func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			if m.later != nil { // else it was withdrawn meanwhile
				m.later = nil
				h.offer(m)
			}
		})
	}
}

// withdraw takes back what its sender does not wait for any more. What a
// consumer has at this moment stays with it.
func (h *hub) withdraw(m *parcel) {
	if m.holder == nil {
		h.drop(m, codeWithdrawn)
		return
	}
	delete(m.sender.puts, m.ref)
	m.sender = nil
}

// sweep drops what is past its time.
func (h *hub) sweep(now time.Time) {
	for _, t := range h.tubes {
		for e := t.ready.Front(); e != nil; {
			m := e.Value.(*parcel)
			if e = e.Next(); m.expired(now) {
				h.drop(m, codeExpired)
			}
		}
	}
}

// count is how many messages of a tube are ready, and how many peers wait.
func (h *hub) count(name string) (ready, waiting int) {
	t := h.tubes[name]
	if t == nil {
		return 0, 0
	}
	now := time.Now()
	for e := t.ready.Front(); e != nil; {
		m := e.Value.(*parcel)
		if e = e.Next(); m.expired(now) {
			h.drop(m, codeExpired)
		}
	}
	return t.ready.Len(), t.waiting.Len()
}

// gone is called when p's connection has ended: what it holds goes back, and
// what it waits for is withdrawn.
func (h *hub) gone(p *peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.left = true
	for _, g := range p.gets {
		h.leave(g)
	}
	for _, m := range p.puts {
		h.withdraw(m)
	}
	for _, m := range p.held {
		h.back(m, 0)
	}
}

func validTube(name string) bool { return bus.ValidTube(name) }
