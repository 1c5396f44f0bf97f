package activemq

import (
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

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

func driver(t testing.TB, cfg bus.Config) bus.Driver {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatalf("opening the driver: %v", err)
	}
	return d
}
