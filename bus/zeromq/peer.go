package zeromq

import (
	"fmt"
	"strconv"
	"time"
)

const (
	peerQueue = 32 << 20         // bytes of answers that a peer has not read; above it, it is given up
	peerAsks  = 4096             // requests of a peer that wait to be answered, of each kind
	waitMax   = 10 * time.Minute // of a GET
	tubesMax  = 64               // of a GET
	refMax    = 64               // bytes of a request's name
)

// A peer is one connection to the hub.
type peer struct {
	hub     *hub
	link    *link
	trusted bool // an agent: may take jobs and send replies

	// Under hub.mu.
	puts map[string]*parcel // jobs that wait to be confirmed, by ref
	gets map[string]*get
	held map[uint64]*parcel // handed out, not acknowledged
	turn int                // the tube to look into first
	left bool
	bare bool // its requests begin with an empty frame, as those of a REQ socket do
}

func newPeer(h *hub, l *link, trusted bool) *peer {
	return &peer{hub: h, link: l, trusted: trusted, puts: map[string]*parcel{}, gets: map[string]*get{}, held: map[uint64]*parcel{}}
}

// serve answers the peer's requests, in their order, until it has gone.
func (p *peer) serve() {
	defer p.hub.gone(p)
	defer p.link.close()
	for {
		m, err := p.link.receive()
		if err != nil {
			return
		}
		p.hub.mu.Lock()
		p.handle(m)
		p.hub.mu.Unlock()
	}
}

// answer sends words. hub.mu is held.
func (p *peer) answer(words ...string) { p.send(text(words...)) }

func (p *peer) send(m message) {
	if p.bare {
		m = append(message{nil}, m...)
	}
	if !p.left && !p.link.send(m) {
		p.link.close() // it does not read
	}
}

// handle answers one request.
func (p *peer) handle(m message) {
	p.bare = len(m) > 0 && len(m[0]) == 0
	if p.bare {
		m = m[1:]
	}
	if len(m) < 2 || len(m[1]) > refMax {
		p.answer("ERR", "", codeBad, reasons[codeBad])
		return
	}
	verb, ref, args := string(m[0]), string(m[1]), m[2:]
	if code := p.do(verb, ref, args); code != "" {
		p.answer("ERR", ref, code, reasons[code])
	}
}

// do returns the code of an ERR, or "" if the request was answered or will be.
func (p *peer) do(verb, ref string, args message) (code string) {
	switch verb {
	case "PUT", "MAIL":
		return p.put(ref, verb == "PUT", args)
	case "GET":
		return p.get(ref, args)
	case "STOP":
		if len(args) != 1 {
			return codeBad
		}
		if m := p.puts[string(args[0])]; m != nil {
			p.hub.withdraw(m)
		}
		if g := p.gets[string(args[0])]; g != nil {
			p.hub.end(g)
		}
		p.answer("OK", ref)
	case "ACK", "BACK":
		return p.settle(ref, verb == "ACK", args)
	case "ASK":
		if len(args) != 1 {
			return codeBad
		}
		if !validTube(string(args[0])) {
			return codeTube
		}
		ready, waiting := p.hub.count(string(args[0]))
		p.answer("OK", ref, p.hub.name, fmt.Sprint(ready), fmt.Sprint(waiting), fmt.Sprint(len(p.hub.tubes)))
	default:
		return codeBad
	}
	return ""
}

// put takes tube, ttl and body.
func (p *peer) put(ref string, queued bool, args message) string {
	if len(args) != 3 {
		return codeBad
	}
	ttl, err := strconv.ParseInt(string(args[1]), 10, 64)
	m := &parcel{tube: string(args[0]), body: args[2], queued: queued}
	switch {
	case err != nil || ttl < 0 || queued && p.puts[ref] != nil:
		return codeBad
	case !validTube(m.tube):
		return codeTube
	case len(m.body) > maxBody:
		return codeLarge
	case queued && (p.hub.sizes.queue+m.size() > queueMax || len(p.puts) >= peerAsks):
		return codeFull
	case !queued && !p.trusted:
		return codeDenied
	}
	if ttl > 0 {
		m.expires = time.Now().Add(time.Duration(min(ttl, 1<<40)) * time.Millisecond)
	}
	if queued {
		m.sender, m.ref = p, ref
		p.puts[ref] = m
	}
	p.hub.put(m)
	if !queued {
		p.answer("OK", ref, fmt.Sprint(m.id))
	}
	return ""
}

// get takes the time to wait, how many messages at most, the largest body, and
// tubes.
func (p *peer) get(ref string, args message) string {
	if len(args) < 4 || len(args) > 3+tubesMax || p.gets[ref] != nil || len(p.gets) >= peerAsks {
		return codeBad
	}
	var n [3]int
	for i := range n {
		v, err := strconv.ParseUint(string(args[i]), 10, 31)
		if err != nil {
			return codeBad
		}
		n[i] = int(v)
	}
	g := &get{peer: p, ref: ref, most: min(max(n[1], 1), mostMax), max: n[2]}
	for _, t := range args[3:] {
		if !validTube(string(t)) {
			return codeTube
		}
		g.tubes = append(g.tubes, string(t))
	}
	switch wait := min(time.Duration(n[0])*time.Millisecond, waitMax); {
	case p.hub.fill(g):
	case wait == 0:
		p.answer("OK", ref)
	default:
		p.hub.wait(g, wait)
	}
	return ""
}

// settle takes numbers of messages, after the delay in milliseconds where they
// are given back. Those that the peer does not have are none of its.
func (p *peer) settle(ref string, ack bool, args message) string {
	delay := time.Duration(0)
	if !ack {
		if len(args) == 0 {
			return codeBad
		}
		ms, err := strconv.ParseUint(string(args[0]), 10, 31)
		if err != nil {
			return codeBad
		}
		delay, args = time.Duration(ms)*time.Millisecond, args[1:]
	}
	for _, a := range args {
		id, err := strconv.ParseUint(string(a), 10, 64)
		if err != nil {
			return codeBad
		}
		m := p.held[id]
		switch {
		case m == nil:
		case ack:
			p.hub.drop(m, "")
		default:
			p.hub.back(m, delay)
		}
	}
	p.answer("OK", ref)
	return ""
}
