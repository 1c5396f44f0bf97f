package activemq

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

const library = "Azure/go-amqp."

func TestClassic(t *testing.T) {
	suite(t, func(t *testing.T) *testserver.Process { return testserver.ActiveMQ(t) }, classicQueues)
}

func TestArtemis(t *testing.T) {
	suite(t, func(t *testing.T) *testserver.Process { return testserver.Artemis(t) }, artemisQueues)
}

func suite(t *testing.T, start func(*testing.T) *testserver.Process, queues func(testing.TB, string) int) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		p := start(t)
		return bustest.Server{
			Driver:  driver(t, bus.Config{URI: p.Addr}),
			Kill:    p.Kill,
			Start:   p.Start,
			Stop:    p.Stop,
			Cont:    p.Cont,
			Addr:    p.Addr,
			At:      func(addr string) bus.Driver { return driver(t, bus.Config{URI: addr}) },
			Tubes:   func(t testing.TB) int { return queues(t, p.Addr) },
			Library: library,
		}
	})
}

func driver(t testing.TB, cfg bus.Config) bus.Driver {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatalf("opening the driver: %v", err)
	}
	return d
}

// What a consumer was sent beyond what it took goes to others when it asks for no
// more, and who works on one message holds no other.
func TestNothingHoarded(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *testserver.Process{
		"Classic": func(t testing.TB) *testserver.Process { return testserver.ActiveMQ(t) },
		"Artemis": testserver.Artemis,
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, start(t).Addr)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			q := bus.Tube{Name: "q"}
			ks := make([]bus.Consumer, 4)
			for i := range ks {
				k, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{q}})
				if err != nil {
					t.Fatal(err)
				}
				ks[i] = k
			}
			put := func(n int) {
				t.Helper()
				for i := range n {
					if r := c.Put(ctx, bus.Message{Tube: q, Body: fmt.Append(nil, i)}); r[0].Err != nil {
						t.Fatal(r[0].Err)
					}
				}
			}
			receive := func(k bus.Consumer, max int) []bus.Delivery {
				t.Helper()
				ds, err := k.Receive(ctx, max)
				if err != nil {
					t.Fatal(err)
				}
				return ds
			}
			put(8)
			for range 2 { // each works on one, all at the same time
				var held [][]bus.Delivery
				for _, k := range ks {
					held = append(held, receive(k, 1))
				}
				for i, k := range ks {
					if err := k.Ack(ctx, held[i]...); err != nil {
						t.Fatal(err)
					}
				}
			}
			put(1)
			if err := ks[0].Ack(ctx, receive(ks[0], 10)...); err != nil { // there is room for 9 more
				t.Fatal(err)
			}
			put(9)
			for got := 0; got < 9; {
				ds := receive(ks[1], 9-got)
				got += len(ds)
				if err := ks[1].Ack(ctx, ds...); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
