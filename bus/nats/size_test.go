package nats

import (
	"testing"

	"github.com/cbsd/cbsdmq/bus"
)

// A server stores messages of more than 32 MB and cannot read them again: no
// stream of ours takes one, whatever the server was told.
func TestStreamsTakeWhatCanBeRead(t *testing.T) {
	for _, kind := range []bus.Kind{bus.Queue, bus.Mailbox} {
		p, err := placeOf(bus.Tube{Name: "cbsd_pool1", Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		if most := p.config(1).MaxMsgSize; most <= 1<<20 || most >= 32<<20 {
			t.Errorf("a stream takes %d bytes", most)
		}
	}
}
