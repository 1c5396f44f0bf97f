package activemq

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

var servers = map[string]func(testing.TB) *testserver.Process{
	"classic": func(t testing.TB) *testserver.Process { return testserver.ActiveMQ(t) },
	"artemis": testserver.Artemis,
}

const library = "Azure/go-amqp."

func TestClassic(t *testing.T) {
	suite(t, "activemq", func(t *testing.T) *testserver.Process { return testserver.ActiveMQ(t) }, classicQueues)
}

func TestArtemis(t *testing.T) {
	suite(t, "artemis", func(t *testing.T) *testserver.Process { return testserver.Artemis(t) }, artemisQueues)
}

func suite(t *testing.T, name string, start func(*testing.T) *testserver.Process, queues func(testing.TB, string) int) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		p := start(t)
		return bustest.Server{
			Name:    name,
			Driver:  driver(t, bus.Config{URI: p.Addr}),
			Kill:    p.Kill,
			Start:   p.Start,
			Stop:    p.Stop,
			Cont:    p.Cont,
			Addr:    p.Addr,
			At:      func(addr string) bus.Driver { return driver(t, bus.Config{URI: addr}) },
			Tubes:   func(t testing.TB) int { return queues(t, p.Addr) },
			Logins:  logins,
			Open:    driver,
			Library: library,
		}
	})
}

// Who holds a message and has not received for a while still gets the others:
// those that were sent ahead, and those that are put later.
func TestHeldWhileResting(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, start(t).Addr)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			q := bus.Tube{Name: "q"}
			put := func(body string) {
				t.Helper()
				if r := c.Put(ctx, bus.Message{Tube: q, Body: []byte(body)}); r[0].Err != nil {
					t.Fatal(r[0].Err)
				}
			}
			n, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{q}})
			if err != nil {
				t.Fatal(err)
			}
			var held []bus.Delivery
			for _, body := range []string{"first", "second"} {
				put(body)
				ds, err := n.Receive(ctx, 10)
				if err != nil || len(ds) != 1 || string(ds[0].Body) != body {
					t.Fatalf("received %v, %v; want %s", ds, err, body)
				}
				held = append(held, ds...)
				n.(*consumer).rest() // as the timer does
			}
			if err := n.Ack(ctx, held...); err != nil {
				t.Fatal(err)
			}
			other, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{q}})
			if err != nil {
				t.Fatal(err)
			}
			put("third") // the first consumer has given its credit back by now
			if ds, err := other.Receive(ctx, 10); err != nil || string(ds[0].Body) != "third" {
				t.Fatalf("the other received %v, %v; want third", ds, err)
			}
		})
	}
}

func driver(t testing.TB, cfg bus.Config) bus.Driver {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatalf("opening the driver: %v", err)
	}
	return d
}

// A queue's reader that takes one at a time, and is gone, has changed no order,
// also where all had come back before.
func TestOneAtATimeKeepsOrder(t *testing.T) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := start(t).Addr
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			q := bus.Tube{Name: "q"}
			want := []string{"1", "2", "3", "4"}
			put := dial(t, addr)
			for _, body := range want {
				if r := put.Put(ctx, bus.Message{Tube: q, Body: []byte(body)}); r[0].Err != nil {
					t.Fatal(r[0].Err)
				}
			}
			for reader, max := range []int{64, 1, 1, 64} {
				c := dial(t, addr)
				n, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{q}, Alone: true})
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for len(got) < min(max, len(want)) {
					ds, err := n.Receive(ctx, max)
					if err != nil {
						t.Fatal(err)
					}
					for _, d := range ds {
						got = append(got, string(d.Body))
					}
				}
				if !slices.Equal(got, want[:len(got)]) {
					t.Errorf("reader %d received %q", reader+1, got)
				}
				c.Close()
			}
		})
	}
}
