package zeromq

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// BenchmarkJobs has a client put jobs that the agent's side acknowledges, so many
// at a time, with and without encryption.
func BenchmarkJobs(b *testing.B) {
	file, _, _ := keyFile(b)
	for _, c := range []struct{ name, key string }{{"NULL", ""}, {"CURVE", file}} {
		for _, flight := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s %d in flight", c.name, flight), func(b *testing.B) {
				cfg := bus.Config{URI: testserver.FreeAddr(b), CurveKey: c.key}
				agent := serve(b, cfg)
				client := dial(b, driver(b, cfg))
				q := bus.Tube{Name: "q"}
				n, err := agent.Consume(b.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{q}})
				if err != nil {
					b.Fatal(err)
				}
				var wg sync.WaitGroup
				wg.Go(func() {
					for got := 0; got < b.N; {
						ds, err := n.Receive(b.Context(), 64)
						if err != nil {
							return
						}
						got += len(ds)
						_ = n.Ack(b.Context(), ds...)
					}
				})
				body := make([]byte, 300)
				slots := make(chan struct{}, flight)
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					slots <- struct{}{}
					wg.Go(func() {
						if err := client.Put(b.Context(), bus.Message{Tube: q, Body: body})[0].Err; err != nil {
							b.Error(err)
						}
						<-slots
					})
				}
				wg.Wait()
			})
		}
	}
}
