package runner

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	helloTimeout = 5 * time.Second
	// maxUnsent is how many bytes may wait for an agent that does not read. What
	// it misses is in the snapshot when it comes back.
	maxUnsent = 4 << 20
	// startBatch is how many starts are put on record with one write. The first
	// are forked while the next are read.
	startBatch = 16
)

// A conn is one agent's connection. Nobody waits for the agent: what it does not
// take at once waits in out for the writer.
type conn struct {
	server *server
	nc     net.Conn

	mu      sync.Mutex
	out     []byte
	writing bool // the writer is at work, and has all that comes
	dead    bool
	more    chan struct{} // holds an element while writing or dead is to be seen
}

func newConn(s *server, nc net.Conn) *conn {
	return &conn{server: s, nc: nc, more: make(chan struct{}, 1)}
}

// serve talks to the agent until the connection ends.
func (c *conn) serve() {
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write()
	}()
	err := c.read()
	c.server.leave(c)
	c.close()
	<-written
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) {
		c.server.log.Warn("agent sent away", "err", err)
	}
}

// read handles what the agent sends; the error says why it ended.
func (c *conn) read() error {
	c.send(func(b []byte) []byte { return append(b, c.server.hello...) })
	c.flush()
	r := bufio.NewReaderSize(c.nc, 64<<10)
	c.nc.SetReadDeadline(time.Now().Add(helloTimeout))
	line, err := r.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("reading its greeting: %w", err)
	}
	if got, want := strings.TrimSpace(string(line)), fmt.Sprintf("cbsdmq-agent %d", Protocol); got != want {
		return fmt.Errorf("it says %q, not %q", got, want)
	}
	c.nc.SetReadDeadline(time.Time{})
	var buf []byte
	for {
		typ, body, next, err := readFrame(r, buf)
		if err != nil {
			return err
		}
		if err := c.handle(typ, decode(body)); err != nil {
			return err
		}
		c.flush()
		if buf = next; cap(buf) > 1<<20 {
			buf = nil
		}
	}
}

func (c *conn) handle(typ byte, d *decoder) error {
	s := c.server
	switch typ {
	case frameStart:
		starts := make([]Start, 0, startBatch)
		for n := d.count(); n > 0 && d.err == nil; n-- {
			starts = append(starts, d.start())
		}
		if d.err != nil {
			return d.err
		}
		for len(starts) > 0 {
			n := min(len(starts), startBatch)
			s.accept(c, starts[:n])
			starts = starts[n:]
		}
	case frameAck:
		var keys []Key
		for n := d.count(); n > 0 && d.err == nil; n-- {
			keys = append(keys, d.key())
		}
		if d.err != nil {
			return d.err
		}
		s.acknowledge(c, keys)
	case frameList:
		request, uuid := d.uint(), d.string()
		if d.err != nil {
			return d.err
		}
		s.list(c, request, uuid)
	case frameKill:
		request, key, sig := d.uint(), d.key(), syscall.Signal(d.int())
		if d.err != nil {
			return d.err
		}
		c.sendResult(request, s.signal(key, sig))
	case frameOutput:
		request, key := d.uint(), d.key()
		if d.err != nil {
			return d.err
		}
		out, errs, err := s.output(key)
		if err != nil {
			c.sendResult(request, err)
			break
		}
		c.sendFrame(frameFiles, func(b []byte) []byte {
			return appendFile(appendFile(binary.AppendUvarint(b, request), out), errs)
		})
	default:
		return fmt.Errorf("unknown frame %q", typ)
	}
	return nil
}

func (c *conn) sendEvent(e *Event) {
	c.sendFrame(frameEvents, func(b []byte) []byte { return appendEvent(binary.AppendUvarint(b, 1), e) })
}

func (c *conn) sendSnapshot(request uint64, snap *Snapshot) {
	c.sendFrame(frameSnapshot, func(b []byte) []byte { return appendSnapshot(binary.AppendUvarint(b, request), snap) })
}

func (c *conn) sendResult(request uint64, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.sendFrame(frameResult, func(b []byte) []byte { return appendString(binary.AppendUvarint(b, request), text) })
}

// sendFrame puts a frame on its way, which flush sends.
func (c *conn) sendFrame(typ byte, fields func([]byte) []byte) {
	c.send(func(b []byte) []byte {
		at := len(b)
		return endFrame(fields(beginFrame(b, typ)), at)
	})
}

func (c *conn) send(add func([]byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		return
	}
	c.out = add(c.out)
	if len(c.out) > maxUnsent {
		c.drop()
	}
}

// flush sends what is on its way, as far as the agent takes it without waiting,
// and leaves the rest to the writer.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || c.writing || len(c.out) == 0 {
		return
	}
	n, err := writeNow(c.nc, c.out)
	if err != nil {
		c.drop()
		return
	}
	c.out = c.out[:copy(c.out, c.out[n:])]
	if len(c.out) > 0 {
		c.writing = true
		c.wake()
	}
}

// writeNow writes as much of b as can be written without waiting.
func writeNow(nc net.Conn, b []byte) (n int, err error) {
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var werr error
	err = raw.Write(func(fd uintptr) bool {
		n, werr = unix.Write(int(fd), b)
		return true
	})
	switch {
	case err != nil:
		return 0, err
	case errors.Is(werr, unix.EAGAIN) || errors.Is(werr, unix.EINTR):
		return 0, nil
	}
	return n, werr
}

func (c *conn) wake() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// drop ends the connection; the caller holds c.mu.
func (c *conn) drop() {
	c.dead = true
	c.nc.Close()
	c.wake()
}

func (c *conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
}

// write is the writer: it sends what flush could not, until the connection ends.
func (c *conn) write() {
	var buf []byte
	for range c.more {
		for {
			c.mu.Lock()
			buf, c.out = c.out, buf[:0]
			c.writing = len(buf) > 0
			dead := c.dead
			c.mu.Unlock()
			if dead {
				return
			}
			if len(buf) == 0 {
				break
			}
			c.nc.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := c.nc.Write(buf); err != nil {
				c.close()
				return
			}
			c.nc.SetWriteDeadline(time.Time{})
			if cap(buf) > 1<<20 {
				buf = nil
			}
		}
	}
}
