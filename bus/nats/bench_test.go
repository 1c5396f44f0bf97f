package nats_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	busnats "github.com/cbsd/cbsdmq/bus/nats"
)

// The embedded broker syncs each message before it confirms it. What that
// costs is measured in the same run:
//
//	go test -run '^$' -bench . ./bus/nats
//
// Directory of the store: TMPDIR.

const benchBody = 512

func openEmbedded(b *testing.B) bus.Driver {
	b.Helper()
	d, closer, err := (&busnats.Opener{}).Open(b.Context(), embeddedConfig(b, "127.0.0.1:0"))
	if err != nil {
		b.Fatalf("opening: %v", err)
	}
	b.Cleanup(func() { closer.Close() })
	return d
}

// BenchmarkFsync appends and syncs, as the broker does for each message that it
// takes and each one that it forgets.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	body := make([]byte, benchBody)
	for b.Loop() {
		if _, err := f.Write(body); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "syncs/s")
}

// BenchmarkPut puts confirmed messages, one for each call, in-flight calls at
// a time.
func BenchmarkPut(b *testing.B) {
	for _, inFlight := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("%d", inFlight), func(b *testing.B) {
			c := dial(b, openEmbedded(b))
			b.ResetTimer()
			each(b, inFlight, func() error {
				return c.Put(context.Background(), bus.Message{Tube: bus.Tube{Name: "q"}, Body: make([]byte, benchBody)})[0].Err
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
		})
	}
}

// BenchmarkRoundTrip puts a job, receives and acknowledges it, puts a reply,
// receives and acknowledges that: four syncs.
func BenchmarkRoundTrip(b *testing.B) {
	for _, inFlight := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("%d", inFlight), func(b *testing.B) {
			d := openEmbedded(b)
			r := newRelay(b, d)
			var mu sync.Mutex
			var took []time.Duration
			b.ResetTimer()
			each(b, inFlight, func() error {
				begin := time.Now()
				err := r.call()
				mu.Lock()
				defer mu.Unlock()
				took = append(took, time.Since(begin))
				return err
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "trips/s")
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// each calls f b.N times from n goroutines.
func each(b *testing.B, n int, f func() error) {
	b.Helper()
	work := make(chan struct{})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for range work {
				if err := f(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.StopTimer()
}

// relay is a client and an agent that answers at once.
type relay struct {
	put     bus.Conn
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan struct{}
}

var (
	jobs    = bus.Tube{Name: "cbsd_zpool1"}
	replies = bus.Tube{Name: "cbsd_zpool1_result_id1", Kind: bus.Mailbox}
)

func newRelay(b *testing.B, d bus.Driver) *relay {
	r := &relay{put: dial(b, d), waiting: map[uint64]chan struct{}{}}
	agent := dial(b, d)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.Cleanup(func() { cancel(); wg.Wait() })
	read := func(t bus.Tube, f func([]bus.Delivery)) {
		n, err := dial(b, d).Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{t}})
		if err != nil {
			b.Fatalf("consuming: %v", err)
		}
		wg.Go(func() {
			for {
				ds, err := n.Receive(ctx, 64)
				if err != nil {
					return
				}
				if err := n.Ack(ctx, ds...); err != nil {
					return
				}
				f(ds)
			}
		})
	}
	read(jobs, func(ds []bus.Delivery) {
		ms := make([]bus.Message, len(ds))
		for i, d := range ds {
			ms[i] = bus.Message{Tube: replies, Body: d.Body, TTL: time.Hour}
		}
		wg.Go(func() { // an agent does not wait for one reply before it takes the next job
			for _, res := range agent.Put(ctx, ms...) {
				if res.Err != nil && ctx.Err() == nil {
					b.Errorf("putting a reply: %v", res.Err)
				}
			}
		})
	})
	read(replies, func(ds []bus.Delivery) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, d := range ds {
			id := binary.BigEndian.Uint64(d.Body)
			if w := r.waiting[id]; w != nil {
				close(w)
				delete(r.waiting, id)
			}
		}
	})
	return r
}

func (r *relay) call() error {
	done := make(chan struct{})
	r.mu.Lock()
	r.next++
	id := r.next
	r.waiting[id] = done
	r.mu.Unlock()
	body := binary.BigEndian.AppendUint64(make([]byte, 0, benchBody), id)
	if err := r.put.Put(context.Background(), bus.Message{Tube: jobs, Body: body[:benchBody]})[0].Err; err != nil {
		return err
	}
	<-done
	return nil
}
