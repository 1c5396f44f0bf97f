package kafka

import (
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/bustest"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A cluster of three, with a copy of the queue on each: while each of them is
// killed in turn messages go through, and none that was confirmed is lost.
func TestThreeServers(t *testing.T) {
	if testing.Short() {
		t.Skip("three servers take long to start")
	}
	nodes := testserver.KafkaCluster(t)
	var addrs []string
	for _, p := range nodes {
		addrs = append(addrs, p.Addr)
	}
	f := bustest.StartTraffic(t, driver(t, bus.Config{URI: strings.Join(addrs, ","), Replicas: 3}), bus.Tube{Name: "cbsd_zpool1"})
	f.Goes(t, 100)
	for _, p := range nodes {
		p.Kill(t)
		t.Logf("works %v after a server was killed", f.Goes(t, 100))
		p.Start(t)
	}
	f.Goes(t, 100)
	f.End(t)
}
