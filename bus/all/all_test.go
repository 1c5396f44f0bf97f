package all_test

import (
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/bus/brokers"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// Every kind of broker that a configuration can name opens, is tested, and is in
// the table of brokers; and so is every broker that tests start.
func TestEveryBrokerIsInTheTable(t *testing.T) {
	table, err := brokers.Recorded()
	if err != nil {
		t.Fatal(err)
	}
	inTable, started := make(map[string]bool), make(map[string]bool)
	for _, b := range table.Brokers {
		inTable[b.Kind] = true
	}
	for _, b := range testserver.Brokers {
		started[b.Section] = true
		if _, ok := table.Find(b.Name); !ok && b.Same == "" {
			t.Errorf("%s is not in the table: run its suite with %s, then go run ./internal/brokertable -write", b.Name, brokers.Variable)
		}
	}
	for _, kind := range config.Kinds() {
		if !inTable[kind] || !started[kind] {
			t.Errorf("%s: in the table %v, in testserver.Brokers %v", kind, inTable[kind], started[kind])
		}
		o := all.Opener{ClientOnly: true}
		_, closer, err := o.Open(t.Context(), kind, bus.Config{URI: "127.0.0.1:1"})
		if err != nil {
			t.Errorf("opening %s: %v", kind, err)
			continue
		}
		closer.Close()
	}
}
