package rabbitmq

import (
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A cluster of three, with a copy of the queue on each.
func TestQuorumQueue(t *testing.T) {
	if testing.Short() {
		t.Skip("three nodes take long to start")
	}
	nodes := testserver.RabbitMQCluster(t)
	bustest.EachKilled(t, driver(t, bus.Config{URI: testserver.Addrs(nodes), Replicas: 3}), nodes, func() {
		if got := testserver.RabbitMQCtl(t, nodes[0], "list_queues", "name", "type", "members"); strings.Count(got, "@localhost") != 3 || !strings.Contains(got, "quorum") {
			t.Fatalf("not a quorum queue on three nodes: %s", got)
		}
	})
}

func TestDropsWorn(t *testing.T) {
	for version, want := range map[string]bool{"3.10.8": false, "3.13.7": false, "4.0.1": true, "4.2.0-rc.1": true, "10.0": true, "": false, "x": false} {
		if got := dropsWorn(amqp.Table{"version": version}); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}
