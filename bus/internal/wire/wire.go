// Package wire is the socket beneath a broker's client library. Libraries have
// no contexts where they dial and where they write, and no limit to what they
// read before a server has shown that it is one, so a Conn sees to that.
package wire

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// stuck is how long a write may go on after the ctx of a call has ended
	// before it is taken for one that the server does not read.
	stuck = 100 * time.Millisecond

	// greeting is how much a server may say until Connected is called.
	greeting = 128 << 10

	headMax = 40

	// together is how much is kept back at most by Together.
	together = 64 << 10
)

// keptFor is how long it is kept back; tests make it longer.
var keptFor = 5 * time.Millisecond

// A Conn is a socket that can be killed under whatever reads and writes.
type Conn struct {
	net.Conn

	mu     sync.Mutex
	err    error  // of the dial
	head   []byte // what was read first
	read   int    // bytes, while connecting
	open   bool   // connected
	killed bool

	sending sync.Mutex
	keeping int    // calls of Together
	kept    []byte // not written yet
	lost    error  // of a write of what was kept

	writing atomic.Int32  // writes in progress
	written atomic.Uint64 // writes that have ended
}

// Opened takes what a dial has returned, and returns what the library is to
// have of it.
func (w *Conn) Opened(conn net.Conn, err error) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err = err; err != nil {
		return nil, err
	}
	w.Conn = conn
	if w.killed {
		conn.Close()
	}
	return w, nil
}

// Connected ends the limits of the greeting.
func (w *Conn) Connected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = true
}

// Failure is why the dial failed, or what was wrong with the greeting, and
// what the server said first.
func (w *Conn) Failure() (head []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.head, w.err
}

// Kill closes the socket.
func (w *Conn) Kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.killed = true
	if w.Conn != nil {
		w.Conn.Close()
	}
}

func (w *Conn) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open {
		return n, err
	}
	if room := headMax - len(w.head); room > 0 {
		w.head = append(w.head, b[:min(n, room)]...)
	}
	if w.read += n; w.read > greeting {
		w.err = errors.New("the server says much, but not that it is the broker")
		return 0, w.err
	}
	return n, err
}

func (w *Conn) Write(b []byte) (int, error) {
	w.sending.Lock()
	defer w.sending.Unlock()
	if w.keeping > 0 && len(w.kept)+len(b) <= together {
		w.kept = append(w.kept, b...)
		return len(b), nil
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	return w.write(b)
}

// Together has what is written while f runs sent by as few system calls as it
// takes: libraries write each message by itself. What others write meanwhile waits
// too. Where f waits for the server all is sent after a moment, as it may be what
// the server waits for, and f is not taken for a write any more.
func (w *Conn) Together(f func()) error {
	w.writing.Add(1) // for Unblock, which may be called before the end
	ended := sync.OnceFunc(func() { w.written.Add(1); w.writing.Add(-1) })
	defer ended()
	w.sending.Lock()
	w.keeping++
	over := false
	var late *time.Timer
	late = time.AfterFunc(keptFor, func() {
		w.sending.Lock()
		defer w.sending.Unlock()
		if !over {
			ended()
			_ = w.flush() // the end of Together tells of it
			late.Reset(keptFor)
		}
	})
	w.sending.Unlock()
	f()
	w.sending.Lock()
	defer w.sending.Unlock()
	w.keeping--
	over = true
	late.Stop()
	return w.flush()
}

// flush writes what was kept. w.sending is held.
func (w *Conn) flush() error {
	if len(w.kept) > 0 && w.lost == nil {
		_, w.lost = w.write(w.kept)
	}
	w.kept = w.kept[:0]
	return w.lost
}

func (w *Conn) write(b []byte) (int, error) {
	w.writing.Add(1)
	n, err := w.Conn.Write(b)
	w.written.Add(1)
	w.writing.Add(-1)
	return n, err
}

// Unblock kills the socket if a write is in progress that does not end soon.
func (w *Conn) Unblock() {
	seen := w.written.Load()
	if w.writing.Load() == 0 {
		return
	}
	time.AfterFunc(stuck, func() {
		if w.writing.Load() > 0 && w.written.Load() == seen {
			w.Kill()
		}
	})
}
