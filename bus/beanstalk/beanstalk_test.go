package beanstalk

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/brokers"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

func TestBus(t *testing.T) {
	suite(t, "beanstalkd", func(t *testing.T) *testserver.Process { return testserver.Beanstalkd(t) })
}

func TestWithoutBinlog(t *testing.T) {
	suite(t, "beanstalkd-nobinlog", func(t *testing.T) *testserver.Process { return testserver.BeanstalkdWithoutBinlog(t) })
}

func suite(t *testing.T, name string, start func(*testing.T) *testserver.Process) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		p := start(t)
		return bustest.Server{
			Name:   name,
			Driver: patient(t, p.Addr),
			Kill:   p.Kill,
			Start:  p.Start,
			Stop:   p.Stop,
			Cont:   p.Cont,
			Addr:   p.Addr,
			At:     func(addr string) bus.Driver { return patient(t, addr) },
			Tubes:  func(t testing.TB) int { return int(ask(t, p.Addr).number("current-tubes")) },
			Urgent: func(t testing.TB, tube, body string) {
				dialRaw(t, p.Addr).say("use %s\r\nput 0 0 60 %d\r\n%s\r\n", tube, len(body), body)
			},
			How: map[string]string{
				brokers.Priority:   "the original clients' put with a priority; ours put all with the same",
				brokers.Durability: "the binlog (-b); what was put since the last sync (-f) a power failure can take",
			},
		}
	})
}

// patient is at for the suite: on a busy machine a server is silent for some seconds,
// and a job is held for as long.
func patient(t testing.TB, addr string) *Driver {
	t.Helper()
	d, err := New(bus.Config{URI: addr, PublishTimeout: 30})
	if err != nil {
		t.Fatalf("making a driver: %v", err)
	}
	return d
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
