package activemq

import (
	"context"
	"fmt"

	"github.com/Azure/go-amqp"
)

// links are opened and closed together.
type links struct {
	each []*link
	held int // messages that were handed out and not settled
}

type link struct {
	tube   string
	in     *amqp.Receiver
	credit int // messages that may still come
	asked  bool
	links  *links
}

// open opens a link to each tube, without credit.
func (k *consumer) open() (*links, error) {
	ls := &links{}
	for _, t := range k.o.Tubes {
		in, err := k.conn.session.NewReceiver(context.Background(), t.Name, &amqp.ReceiverOptions{
			Credit: -1, SourceCapabilities: []string{"queue"},
		})
		if err != nil {
			_ = ls.close()
			return nil, err
		}
		ls.each = append(ls.each, &link{tube: t.Name, in: in, links: ls})
	}
	return ls, nil
}

// close gives all that was not settled back.
func (ls *links) close() error {
	var first error
	for _, l := range ls.each {
		if err := l.in.Close(context.Background()); err != nil && first == nil {
			first = fmt.Errorf("closing a link to %s: %w", l.tube, err)
		}
	}
	return first
}

// use makes ls the links that receive.
func (k *consumer) use(ls *links) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.opening = false
	if k.closed {
		k.shut(ls)
		return
	}
	k.all[ls] = struct{}{}
	k.now = ls
	for _, l := range ls.each {
		go k.collect(l)
	}
	k.signal()
}

// collect takes what comes over a link until it is closed.
func (k *consumer) collect(l *link) {
	for {
		msg, err := l.in.Receive(context.Background(), nil)
		k.mu.Lock()
		_, open := k.all[l.links]
		switch {
		case err != nil:
			k.mu.Unlock()
			if open { // not by us
				_ = k.conn.Fail(fmt.Errorf("receiving from %s: %w", l.tube, err))
			}
			return
		case l.links == k.now:
			l.credit--
			k.came++
			k.ready = append(k.ready, &ref{consumer: k, link: l, msg: msg, n: k.came})
			k.signal()
		}
		k.mu.Unlock()
	}
}

// reopen opens links when those before are closed: what they give back comes
// first.
func (k *consumer) reopen(before <-chan struct{}) {
	if before != nil {
		select {
		case <-before:
		case <-k.closing:
			return
		case <-k.conn.Dead():
			return
		}
	}
	ls, err := k.open()
	if err != nil {
		_ = k.conn.Fail(fmt.Errorf("consuming again: %w", err))
		return
	}
	k.use(ls)
}

// retire has ls receive no more, and closes them when nothing is held that came
// over them. k.mu is held.
func (k *consumer) retire(ls *links) {
	if ls == k.now {
		k.now, k.ready = nil, nil
		k.signal()
	}
	if _, open := k.all[ls]; open && ls.held == 0 {
		k.shut(ls)
	}
}

// shut closes ls, and waits for nothing. k.mu is held.
func (k *consumer) shut(ls *links) {
	delete(k.all, ls)
	before, done := k.shutting, make(chan struct{})
	k.shutting = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		if err := ls.close(); err != nil {
			_ = k.conn.Fail(err)
		}
	}()
}
