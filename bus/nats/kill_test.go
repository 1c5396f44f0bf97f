package nats_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestKilledBroker kills the embedded broker again and again, as a crash does,
// while jobs and replies are put, received and acknowledged, and checks that
// whatever it confirmed was received.
func TestKilledBroker(t *testing.T) {
	const kills, between = 5, 400 // messages confirmed from one kill to the next
	cfg := embeddedConfig(t, testserver.FreeAddr(t))
	broker := brokerProcess(t, cfg)
	b := bus.New(driver(t, cfg), bus.Options{MaxWait: 100 * time.Millisecond})
	t.Cleanup(func() { b.Close() })
	tubes := []bus.Tube{
		{Name: "cbsd_zpool1"},
		{Name: "cbsd_zpool1_result_id1", Kind: bus.Mailbox},
		{Name: "cbsd_zpool1_result_id2", Kind: bus.Mailbox},
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	var received, confirmed sync.Map
	var count atomic.Int64
	var readers, writers sync.WaitGroup
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	for _, tube := range tubes {
		n, err := b.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{tube}})
		if err != nil {
			t.Fatalf("consuming: %v", err)
		}
		readers.Go(func() {
			for {
				ds, err := n.Receive(reading, 64)
				if err != nil {
					if reading.Err() == nil {
						t.Errorf("receiving from %s: %v", tube.Name, err)
					}
					return
				}
				for _, d := range ds {
					received.Store(d.Tube+" "+string(d.Body), true)
				}
				_ = n.Ack(reading, ds...) // lost with the broker, if it is
			}
		})
	}
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	for w := range 6 {
		tube := tubes[w%len(tubes)]
		writers.Go(func() {
			for i := 0; writing.Err() == nil; i++ {
				ms := make([]bus.Message, 1+i%32)
				for j := range ms {
					ms[j] = bus.Message{Tube: tube, Body: fmt.Appendf(nil, "%d/%d/%d", w, i, j)}
				}
				for j, r := range b.Put(ctx, ms...) {
					if r.Err == nil {
						confirmed.Store(tube.Name+" "+string(ms[j].Body), true)
						count.Add(1)
					}
				}
			}
		})
	}
	more := func() {
		t.Helper()
		target := count.Load() + between
		testserver.Eventually(t, time.Minute, func() error {
			if got := count.Load(); got < target {
				return fmt.Errorf("%d messages confirmed, want %d", got, target)
			}
			return nil
		})
	}
	for range kills {
		more()
		broker.Kill(t)
		broker.Start(t)
	}
	more()
	stopWriting()
	writers.Wait()
	testserver.Eventually(t, time.Minute, func() error {
		lost := 0
		confirmed.Range(func(k, _ any) bool {
			if _, ok := received.Load(k); !ok {
				lost++
			}
			return true
		})
		if lost > 0 {
			return fmt.Errorf("%d of %d confirmed messages have not arrived", lost, count.Load())
		}
		return nil
	})
	stopReading()
	readers.Wait()
	t.Logf("%d messages confirmed over %d kills, none lost", count.Load(), kills)
}
