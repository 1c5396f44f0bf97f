package beanstalk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"time"
)

const (
	crlf    = "\r\n"
	maxLine = 300     // the longest is USING and a tube's name of 200 bytes
	maxSize = 1 << 30 // of a job, by beanstalkd's own limit
)

// wire is a TCP connection to a beanstalkd and its protocol. Replies are read
// and commands written so that what a deadline has interrupted can go on where
// it was.
type wire struct {
	nc  net.Conn
	out []byte // commands, until flush

	mu       sync.Mutex
	patience time.Duration // see until
	cut      bool          // the present call is to end
	shut     bool          // every call is

	buf  []byte
	r, w int // buf[r:w] is read and not yet used

	// The reply whose body is being read.
	cur  reply
	left int // bytes to come, the end of line included; 0 = between replies

	used  string // tube of puts
	limit int    // largest job that may be put
}

// A kind of reply, in the words of the protocol.
type kind byte

const (
	unknown kind = iota
	inserted
	tooBig
	using
	watching
	reserved
	found
	timedOut
	deadlineSoon
	deleted
	released
	notFound
	ok
	failure // of the server, or of our command
)

type reply struct {
	kind kind
	id   uint64 // inserted, reserved, found
	size int    // of the body: reserved, found, ok
	body []byte // nil if longer than asked for
	word string // failure: what the server said
}

var past = time.Unix(1, 0)

// until arms the connection: what follows fails when ctx ends, and when the
// server says nothing for limit. The returned function disarms it.
func (w *wire) until(ctx context.Context, limit time.Duration) (disarm func()) {
	w.mu.Lock()
	w.patience, w.cut = limit, w.shut
	w.mu.Unlock()
	w.extend()
	if ctx.Done() == nil {
		return func() {}
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		w.interrupt(false)
		close(done)
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// interrupt ends what waits for the server, with shut also what will.
func (w *wire) interrupt(shut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut, w.shut = true, w.shut || shut
	w.nc.SetDeadline(past)
}

// extend gives the server its time anew, unless the call is to end.
func (w *wire) extend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		w.nc.SetDeadline(past)
	} else {
		w.nc.SetDeadline(time.Now().Add(w.patience))
	}
}

// flush sends the commands in w.out. What a deadline keeps it from sending is
// there for the next time.
func (w *wire) flush() error {
	if len(w.out) == 0 {
		return nil
	}
	n, err := w.nc.Write(w.out)
	w.out = w.out[:copy(w.out, w.out[n:])]
	if len(w.out) == 0 && cap(w.out) > 1<<20 {
		w.out = nil
	}
	return err
}

// reply reads the next reply. A body longer than max is discarded; max < 0
// discards any, 0 none.
func (w *wire) reply(max int) (reply, error) {
	if w.left == 0 {
		line, err := w.line()
		if err != nil {
			return reply{}, err
		}
		r := parse(line)
		switch r.kind {
		case unknown:
			return r, &garbage{bytes.Clone(line)}
		case ok, reserved, found:
		default:
			return r, nil
		}
		if w.cur, w.left = r, r.size+len(crlf); max == 0 || r.size <= max {
			// Grows with what really comes.
			w.cur.body = make([]byte, 0, min(r.size, 1<<16))
		}
	}
	for w.left > len(crlf) {
		if w.r == w.w {
			if err := w.fill(); err != nil {
				return reply{}, err
			}
		}
		n := min(w.left-len(crlf), w.w-w.r)
		if w.cur.body != nil {
			w.cur.body = append(w.cur.body, w.buf[w.r:w.r+n]...)
		}
		w.r += n
		w.left -= n
	}
	for w.w-w.r < len(crlf) {
		if err := w.fill(); err != nil {
			return reply{}, err
		}
	}
	if end := w.buf[w.r : w.r+len(crlf)]; string(end) != crlf {
		return reply{}, &garbage{bytes.Clone(end)}
	}
	w.r += len(crlf)
	r := w.cur
	w.cur, w.left = reply{}, 0
	return r, nil
}

// line reads to the end of a line. The result is valid until the next read.
func (w *wire) line() ([]byte, error) {
	from := w.r
	for {
		if i := bytes.IndexByte(w.buf[from:w.w], '\n'); i >= 0 {
			line := w.buf[w.r : from+i]
			w.r = from + i + 1
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
		if w.w-w.r > maxLine {
			return nil, &garbage{bytes.Clone(w.buf[w.r:w.w])}
		}
		seen := w.w - w.r
		if err := w.fill(); err != nil {
			return nil, err
		}
		from = w.r + seen
	}
}

// fill reads more into buf.
func (w *wire) fill() error {
	if w.r > 0 {
		copy(w.buf, w.buf[w.r:w.w])
		w.r, w.w = 0, w.w-w.r
	}
	n, err := w.nc.Read(w.buf[w.w:])
	w.w += n
	switch {
	case n > 0:
		w.extend()
		return nil
	case errors.Is(err, io.EOF):
		return errors.New("the server closed the connection")
	}
	return err
}

// parse takes a line apart. A body follows OK, RESERVED and FOUND.
func parse(line []byte) reply {
	word, rest, _ := bytes.Cut(line, []byte(" "))
	switch string(word) {
	case "INSERTED":
		if id, ok := number(rest); ok {
			return reply{kind: inserted, id: id}
		}
	case "RESERVED", "FOUND":
		first, second, _ := bytes.Cut(rest, []byte(" "))
		id, isID := number(first)
		size, isSize := number(second)
		if isID && isSize && size <= maxSize {
			r := reply{kind: reserved, id: id, size: int(size)}
			if len(word) == len("FOUND") {
				r.kind = found
			}
			return r
		}
	case "OK":
		if size, isSize := number(rest); isSize && size <= maxSize {
			return reply{kind: ok, size: int(size)}
		}
	case "USING":
		return reply{kind: using}
	case "WATCHING":
		return reply{kind: watching}
	case "TIMED_OUT":
		return reply{kind: timedOut}
	case "DEADLINE_SOON":
		return reply{kind: deadlineSoon}
	case "DELETED":
		return reply{kind: deleted}
	case "RELEASED":
		return reply{kind: released}
	case "NOT_FOUND":
		return reply{kind: notFound}
	case "JOB_TOO_BIG":
		return reply{kind: tooBig}
	case "BURIED", "DRAINING", "OUT_OF_MEMORY", "INTERNAL_ERROR",
		"EXPECTED_CRLF", "BAD_FORMAT", "UNKNOWN_COMMAND", "NOT_IGNORED":
		return reply{kind: failure, word: string(word)}
	}
	return reply{}
}

// number reads decimal digits.
func number(b []byte) (n uint64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxUint64-9)/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, len(b) > 0
}

// expect reads a reply that has to be of kind want, or is notFound.
func (w *wire) expect(want kind, max int) (reply, error) {
	r, err := w.reply(max)
	if err == nil && r.kind != want && r.kind != notFound {
		err = r.unexpected()
	}
	return r, err
}

// unexpected is the error of a reply that ends the connection.
func (r reply) unexpected() error {
	switch r.word {
	case "":
		return fmt.Errorf("the server's answers are out of step (answer %d)", r.kind)
	case "DRAINING":
		return errors.New("the server takes no more jobs: it was sent SIGUSR1 and is draining")
	case "OUT_OF_MEMORY":
		return errors.New("the server says OUT_OF_MEMORY: it has no memory left, or no room on the disk of its binlog")
	}
	return fmt.Errorf("the server says %s", r.word)
}

// full reports whether a server that has not taken a job may take it later.
func (r reply) full() bool {
	return r.kind == failure && (r.word == "DRAINING" || r.word == "OUT_OF_MEMORY")
}

// garbage is what no beanstalkd says.
type garbage struct{ said []byte }

func (g *garbage) Error() string {
	return fmt.Sprintf("this is no answer of beanstalkd: %.60q", g.said)
}

// explain puts the error of a call into words, or returns ctx's.
func (w *wire) explain(ctx context.Context, err error) error {
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("the server did not answer within %v", w.patience)
	}
	return err
}
