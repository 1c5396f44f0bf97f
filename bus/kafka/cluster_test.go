package kafka

import (
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A cluster of three, with a copy of the queue on each.
func TestThreeServers(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers take long to start")
	}
	nodes := testserver.KafkaCluster(t)
	bustest.EachKilled(t, driver(t, bus.Config{URI: testserver.Addrs(nodes), Replicas: 3}), nodes, nil)
}
