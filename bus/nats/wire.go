package nats

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// stuck is how long a write may go on after the ctx of a call has ended
	// before it is taken for one that the server does not read.
	stuck = 100 * time.Millisecond

	// greeting is how much a server may say until we are connected: its INFO
	// line, and the TLS handshake.
	greeting = 128 << 10
)

// wire is the socket beneath a connection. nats.go has no contexts where it
// dials and where it writes, and no limit to the first line that it reads, so
// wire sees to that.
type wire struct {
	net.Conn
	ctx     context.Context // of the dial
	process nats.InProcessConnProvider

	mu     sync.Mutex
	err    error  // of the dial
	head   []byte // what was read first
	read   int    // bytes, while connecting
	open   bool   // connected
	killed bool

	writing atomic.Int32  // writes in progress
	written atomic.Uint64 // writes that have ended
}

// Dial is called by nats.Connect.
func (w *wire) Dial(network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(w.ctx, network, addr)
	return w.opened(conn, err)
}

// InProcessConn is called by nats.Connect in place of Dial.
func (w *wire) InProcessConn() (net.Conn, error) {
	conn, err := w.process.InProcessConn()
	return w.opened(conn, err)
}

func (w *wire) opened(conn net.Conn, err error) (net.Conn, error) {
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

// connected ends the limits of the greeting.
func (w *wire) connected() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = true
}

// failure is why the dial failed, if nats.Connect does not say it, and what
// the server said first.
func (w *wire) failure() (head []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.head, w.err
}

// kill closes the socket under whatever reads and writes.
func (w *wire) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.killed = true
	if w.Conn != nil {
		w.Conn.Close()
	}
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open {
		return n, err
	}
	if len(w.head) == 0 {
		w.head = append(w.head, b[:min(n, 40)]...)
	}
	if w.read += n; w.read > greeting {
		w.err = errors.New("the server says much, but not that it is NATS")
		return 0, w.err
	}
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	w.writing.Add(1)
	n, err := w.Conn.Write(b)
	w.written.Add(1)
	w.writing.Add(-1)
	return n, err
}

// unblock kills the socket if a write is in progress that does not end soon.
func (w *wire) unblock() {
	seen := w.written.Load()
	if w.writing.Load() == 0 {
		return
	}
	time.AfterFunc(stuck, func() {
		if w.writing.Load() > 0 && w.written.Load() == seen {
			w.kill()
		}
	})
}
