package nats

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// Of several who make a stream at the same moment each finds it made: a server may
// tell one of them that it overlaps with another, which is the same.
func TestMadeAtOnce(t *testing.T) {
	addr := testserver.NATS(t).Addr
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conns := make([]bus.Conn, 8)
	for i := range conns {
		d, closer, err := (&Opener{ClientOnly: true}).Open(ctx, bus.Config{URI: "nats://" + addr})
		if err != nil {
			t.Fatal(err)
		}
		defer closer.Close()
		if conns[i], err = d.Dial(ctx); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	for n := range 200 {
		var wg sync.WaitGroup
		for _, c := range conns {
			wg.Go(func() {
				if r := c.Put(ctx, bus.Message{Tube: bus.Tube{Name: fmt.Sprint("q", n)}, Body: []byte("x")})[0]; r.Err != nil {
					t.Errorf("queue %d: %v", n, r.Err)
				}
			})
		}
		wg.Wait()
	}
}
