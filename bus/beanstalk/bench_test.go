package beanstalk

import (
	"fmt"
	"testing"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

var benchBody = make([]byte, 300)

// servers are the ways in which people run beanstalkd.
var servers = []struct {
	name  string
	start func(testing.TB) *testserver.Process
}{
	{"nobinlog", func(t testing.TB) *testserver.Process { return testserver.BeanstalkdWithoutBinlog(t) }},
	{"f50", func(t testing.TB) *testserver.Process { return testserver.Beanstalkd(t, "-f", "50") }},
	{"f0", func(t testing.TB) *testserver.Process { return testserver.Beanstalkd(t) }},
}

// BenchmarkPut puts batches; an op is one message.
func BenchmarkPut(b *testing.B) {
	for _, s := range servers {
		for _, batch := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/%d", s.name, batch), func(b *testing.B) {
				c := benchConn(b, s.start(b).Addr)
				ms := benchMessages(batch)
				b.ReportAllocs()
				for done := 0; done < b.N; done += batch {
					mustPut(b, c, ms[:min(batch, b.N-done)])
				}
			})
		}
	}
}

// BenchmarkReceiveAck receives and acknowledges; an op is one message.
func BenchmarkReceiveAck(b *testing.B) {
	for _, s := range servers {
		for _, batch := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/%d", s.name, batch), func(b *testing.B) {
				c := benchConn(b, s.start(b).Addr)
				mustPut(b, c, benchMessages(b.N))
				n, err := c.Consume(b.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{benchTube}})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				b.ResetTimer()
				for done := 0; done < b.N; {
					ds, err := n.Receive(b.Context(), batch)
					if err != nil {
						b.Fatal(err)
					}
					done += len(ds)
					if err := n.Ack(b.Context(), ds...); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkHop is the latency of a message: put, received by a consumer that
// waits for it, acknowledged.
func BenchmarkHop(b *testing.B) {
	for _, s := range servers {
		b.Run(s.name, func(b *testing.B) {
			c := benchConn(b, s.start(b).Addr)
			n, err := c.Consume(b.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{benchTube}})
			if err != nil {
				b.Fatal(err)
			}
			ms := benchMessages(1)
			got := make(chan error)
			go func() {
				for range b.N {
					ds, err := n.Receive(b.Context(), 64)
					if err == nil {
						err = n.Ack(b.Context(), ds...)
					}
					got <- err
				}
			}()
			b.ResetTimer()
			for range b.N {
				mustPut(b, c, ms)
				if err := <-got; err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

var benchTube = bus.Tube{Name: "bench"}

func benchMessages(n int) []bus.Message {
	ms := make([]bus.Message, n)
	for i := range ms {
		ms[i] = bus.Message{Tube: benchTube, Body: benchBody}
	}
	return ms
}

func benchConn(b *testing.B, addr string) bus.Conn {
	c, err := at(b, addr).Dial(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

func mustPut(b *testing.B, c bus.Conn, ms []bus.Message) {
	for _, r := range c.Put(b.Context(), ms...) {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}
