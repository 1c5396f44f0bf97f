package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
)

// The suite without a server that takes a while to start: the library's own
// imitation of Kafka, share groups included. It cannot be killed or frozen.
func TestFake(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		fake, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			t.Fatalf("starting the imitation: %v", err)
		}
		t.Cleanup(fake.Close)
		real := fake.ListenAddrs()[0]
		return bustest.Server{
			Driver:  driver(t, bus.Config{URI: real}),
			Addr:    real,
			At:      func(addr string) bus.Driver { return through(driver(t, bus.Config{URI: addr}), real, addr) },
			Tubes:   func(t testing.TB) int { return tubes(t, real) },
			Library: library,
		}
	})
}
