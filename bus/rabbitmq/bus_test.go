package rabbitmq

import (
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/brokers"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

const library = "rabbitmq/amqp091-go."

func TestBus(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		p := testserver.RabbitMQ(t)
		return bustest.Server{
			Name:   "rabbitmq",
			Driver: driver(t, bus.Config{URI: p.Addr}),
			Kill:   p.Kill,
			Start:  p.Start,
			Stop:   p.Stop,
			Cont:   p.Cont,
			Addr:   p.Addr,
			At:     func(addr string) bus.Driver { return driver(t, bus.Config{URI: addr}) },
			Tubes:  func(t testing.TB) int { return testserver.RabbitMQQueues(t, p) },
			Logins: logins,
			Open:   driver,
			How: map[string]string{
				brokers.Durability: "durable queues, persistent messages, publisher confirms",
				"Release":          "a delay is waited for by whoever gives back",
			},
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
