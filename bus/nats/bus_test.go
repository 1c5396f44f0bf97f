package nats_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	busnats "github.com/cbsd/cbsdmq/bus/nats"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

const library = "nats-io/nats.go"

// TestExternal runs the suite against the nats-server that is installed.
func TestExternal(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		p := testserver.NATS(t)
		d := driver(t, bus.Config{URI: p.Addr})
		// Caps says what the server can do once it has been dialled.
		dial(t, d).Close()
		return bustest.Server{
			Name:    "nats",
			Driver:  d,
			Kill:    p.Kill,
			Start:   p.Start,
			Stop:    func(t testing.TB) { p.Stop(t); silent(t, p.Addr) },
			Cont:    p.Cont,
			Addr:    p.Addr,
			At:      func(addr string) bus.Driver { return driver(t, bus.Config{URI: "nats://" + addr}) },
			Tubes:   func(t testing.TB) int { return assets(t, p.Addr) },
			Logins:  func(t *testing.T, login bustest.Login) { logins(t, login, installed) },
			Open:    open,
			Library: library,
		}
	})
}

// silent waits until the server has stopped: the signal reaches its threads one
// after the other.
func silent(t testing.TB, addr string) {
	t.Helper()
	testserver.Eventually(t, 10*time.Second, func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return nil // not even the kernel answers any more
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, _ := c.Read(make([]byte, 1)); n > 0 {
			return errors.New("the server still greets")
		}
		return nil
	})
}

// assets counts the streams and consumers on a server.
func assets(t testing.TB, addr string, opts ...nats.Option) int {
	t.Helper()
	nc, err := nats.Connect("nats://"+addr, opts...)
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatalf("using JetStream: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	n := 0
	streams := js.ListStreams(ctx)
	for s := range streams.Info() {
		n += 1 + s.State.Consumers
	}
	if err := streams.Err(); err != nil {
		t.Fatalf("listing streams: %v", err)
	}
	return n
}

func driver(t testing.TB, cfg bus.Config) *busnats.Driver {
	t.Helper()
	d, err := busnats.New(cfg)
	if err != nil {
		t.Fatalf("opening the driver: %v", err)
	}
	return d
}

func open(t testing.TB, cfg bus.Config) bus.Driver { return driver(t, cfg) }

func dial(t testing.TB, d bus.Driver) bus.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := d.Dial(ctx)
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
