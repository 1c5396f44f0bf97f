package rabbitmq

import (
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

const library = "rabbitmq/amqp091-go."

func TestBus(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		p := testserver.RabbitMQ(t)
		return bustest.Server{
			Driver:  driver(t, bus.Config{URI: p.Addr}),
			Kill:    p.Kill,
			Start:   p.Start,
			Stop:    p.Stop,
			Cont:    p.Cont,
			Addr:    p.Addr,
			At:      func(addr string) bus.Driver { return driver(t, bus.Config{URI: addr}) },
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
