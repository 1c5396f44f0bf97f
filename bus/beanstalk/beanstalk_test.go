package beanstalk

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

func TestBus(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		p := testserver.Beanstalkd(t)
		return bustest.Server{
			Driver: at(t, p.Addr),
			Kill:   p.Kill,
			Start:  p.Start,
			Stop:   p.Stop,
			Cont:   p.Cont,
			Addr:   p.Addr,
			At:     func(addr string) bus.Driver { return at(t, addr) },
			Tubes:  func(t testing.TB) int { return int(ask(t, p.Addr).number("current-tubes")) },
		}
	})
}

func at(t testing.TB, addr string) *Driver {
	t.Helper()
	d, err := New(bus.Config{URI: addr})
	if err != nil {
		t.Fatalf("making a driver: %v", err)
	}
	return d
}

// raw is a client that knows nothing of ours.
type raw struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dialRaw(t testing.TB, addr string) *raw {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	t.Cleanup(func() { nc.Close() })
	return newRaw(t, nc)
}

func newRaw(t testing.TB, nc net.Conn) *raw { return &raw{t, nc, bufio.NewReader(nc)} }

// say sends a command and returns the line that is the answer.
func (c *raw) say(format string, args ...any) string {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("reading: %v", err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func ask(t testing.TB, addr string) stats {
	t.Helper()
	c := dialRaw(t, addr)
	defer c.Close()
	var size int
	if _, err := fmt.Sscanf(c.say("stats\r\n"), "OK %d", &size); err != nil {
		t.Fatalf("asking for statistics: %v", err)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c.r, body); err != nil {
		t.Fatalf("reading statistics: %v", err)
	}
	return parseStats(body)
}
