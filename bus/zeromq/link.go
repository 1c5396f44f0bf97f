package zeromq

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// message is what one side says to the other: its frames.
type message [][]byte

func (m message) size() int {
	n := 0
	for _, f := range m {
		n += len(f) + 32
	}
	return n
}

// text makes a message of words.
func text(words ...string) message {
	m := make(message, len(words))
	for i, w := range words {
		m[i] = []byte(w)
	}
	return m
}

// A link sends and receives messages over a pipe. Its writer is a goroutine of
// its own, so that nobody waits for a peer that does not read.
type link struct {
	*pipe
	most int // bytes that may wait to be written

	mu      sync.Mutex
	queue   []queued
	bytes   int
	closed  bool
	changed chan struct{} // closed when queue gets shorter, or closed true
	wake    chan struct{} // holds a token when there is something to write
	done    chan struct{} // closed when the writer has ended
}

type queued struct {
	message
	command bool
}

func newLink(p *pipe, most int) *link {
	l := &link{pipe: p, most: most, changed: make(chan struct{}), wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.writer()
	return l
}

// send queues m. It returns false, and has not queued it, if there is no room
// or the link is closed.
func (l *link) send(m message) bool { return l.enqueue(queued{message: m}) }

func (l *link) enqueue(q queued) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := q.size()
	if l.closed || l.bytes > 0 && l.bytes+n > l.most {
		return false
	}
	l.queue, l.bytes = append(l.queue, q), l.bytes+n
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

var errLinkClosed = errors.New("the connection is closed")

// sendWait queues m when there is room.
func (l *link) sendWait(ctx context.Context, m message) error {
	for {
		l.mu.Lock()
		changed, closed := l.changed, l.closed
		l.mu.Unlock()
		switch {
		case closed:
			return errLinkClosed
		case ctx.Err() != nil:
			return ctx.Err()
		case l.send(m):
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (l *link) writer() {
	defer close(l.done)
	for {
		l.mu.Lock()
		batch, closed := l.queue, l.closed
		l.queue = nil
		l.mu.Unlock()
		if closed {
			return
		}
		sent := 0
		var err error
		for _, q := range batch {
			if err == nil {
				err = l.put(q)
			}
			sent += q.size()
		}
		if err == nil && len(batch) > 0 {
			err = l.w.Flush()
		}
		if err != nil {
			l.close() // the reader finds out
			return
		}
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			return
		}
		l.bytes -= sent
		close(l.changed)
		l.changed = make(chan struct{})
		more := len(l.queue) > 0
		l.mu.Unlock()
		if !more {
			<-l.wake
		}
	}
}

func (l *link) put(q queued) error {
	for i, b := range q.message {
		f := frame{data: b}
		if i < len(q.message)-1 {
			f.flags |= flagMore
		}
		if q.command {
			f.flags |= flagCommand
		}
		if err := l.write(f); err != nil {
			return err
		}
	}
	return nil
}

// receive returns the next message.
func (l *link) receive() (message, error) {
	var m message
	size := 0
	for {
		f, err := l.read()
		if err != nil {
			return nil, err
		}
		if f.flags&flagCommand != 0 {
			if err := l.command(f.data); err != nil {
				return nil, err
			}
			continue
		}
		m = append(m, f.data)
		if size += len(f.data) + 32; size > messageMax || len(m) > framesMax {
			return nil, fmt.Errorf("a message of more than %d bytes or %d frames: %w", messageMax, framesMax, errFrame)
		}
		if f.flags&flagMore == 0 {
			return m, nil
		}
	}
}

// command answers a PING with its context; what else may come between messages
// is not for us.
func (l *link) command(data []byte) error {
	name, body, err := splitCommand(data)
	switch {
	case err != nil:
		return err
	case name == "ERROR" && len(body) > 0:
		return &refused{printable(body[1:])}
	case name == "PING" && len(body) >= 2:
		l.enqueue(queued{message{command("PONG", body[2:min(len(body), 18)])}, true})
	}
	return nil
}

// close ends the connection; what waits to be written is lost.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.changed)
	l.Conn.Close()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
