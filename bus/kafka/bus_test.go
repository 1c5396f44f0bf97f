package kafka

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

const library = "twmb/franz-go"

func TestBus(t *testing.T) {
	bustest.Run(t, func(t *testing.T) bustest.Server {
		p := testserver.Kafka(t)
		return bustest.Server{
			Name:    "kafka",
			Driver:  driver(t, bus.Config{URI: p.Addr}),
			Kill:    p.Kill,
			Start:   p.Start,
			Stop:    p.Stop,
			Cont:    p.Cont,
			Addr:    p.Addr,
			At:      func(addr string) bus.Driver { return through(driver(t, bus.Config{URI: addr}), p.Addr, addr) },
			Tubes:   func(t testing.TB) int { return tubes(t, p.Addr) },
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

// through has d reach the broker at real only through proxy, although the broker
// tells its own address.
func through(d bus.Driver, real, proxy string) bus.Driver {
	d.(*Driver).dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == real {
			addr = proxy
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	return d
}

// tubes is how many topics and groups there are.
func tubes(t testing.TB, addr string) int {
	t.Helper()
	adm := admin(t, addr)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	topics, err := adm.ListTopics(ctx)
	if err != nil {
		t.Fatalf("listing topics: %v", err)
	}
	groups, err := adm.ListGroups(ctx)
	if err != nil {
		t.Fatalf("listing groups: %v", err)
	}
	return len(topics) + len(groups)
}

func admin(t testing.TB, addr string) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatalf("opening a client: %v", err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}
