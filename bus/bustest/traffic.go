package bustest

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

// Traffic puts messages and reads them until it is ended, while servers of a
// cluster die, and knows which were confirmed and which came.
type Traffic struct {
	bus       *bus.Bus
	confirmed sync.Map
	received  sync.Map // ids, by body
	again     atomic.Int64
	doubled   atomic.Int64
	count     atomic.Int64 // confirmed on the queue

	stopWriting, stopReading context.CancelFunc
	writers, readers         sync.WaitGroup
}

// patience is for a cluster of which a server has gone: the others have to notice
// and to elect, and one that is back to catch up.
const patience = 2 * limit

// StartTraffic begins traffic on tubes, in batches of up to 8 messages.
func StartTraffic(t *testing.T, d bus.Driver, tubes ...bus.Tube) *Traffic {
	t.Helper()
	f := &Traffic{bus: bus.New(d, bus.Options{MaxWait: time.Second})}
	t.Cleanup(func() { f.bus.Close() })
	writing, stopWriting := context.WithCancel(t.Context())
	reading, stopReading := context.WithCancel(t.Context())
	f.stopWriting, f.stopReading = stopWriting, stopReading
	for _, tube := range tubes {
		n, err := f.bus.Consume(reading, bus.ConsumeOptions{Tubes: []bus.Tube{tube}})
		if err != nil {
			t.Fatalf("consuming %s: %v", tube.Name, err)
		}
		f.readers.Go(func() {
			for {
				ds, err := n.Receive(reading, 64)
				if err != nil {
					if reading.Err() == nil {
						t.Errorf("receiving from %s: %v", tube.Name, err)
					}
					return
				}
				for _, d := range ds {
					if id, twice := f.received.LoadOrStore(d.Tube+" "+string(d.Body), d.ID); twice && id == d.ID {
						f.again.Add(1)
					} else if twice {
						f.doubled.Add(1)
					}
				}
				_ = n.Ack(reading, ds...) // what is lost with a server comes again
			}
		})
	}
	for w := range 2 * len(tubes) {
		tube := tubes[w%len(tubes)]
		f.writers.Go(func() {
			for i := 0; writing.Err() == nil; i++ {
				ms := make([]bus.Message, 1+i%8)
				for j := range ms {
					ms[j] = bus.Message{Tube: tube, Body: fmt.Appendf(nil, "%d/%d/%d", w, i, j), TTL: time.Hour}
				}
				for j, r := range f.bus.Put(writing, ms...) {
					if r.Err == nil {
						f.confirmed.Store(tube.Name+" "+string(ms[j].Body), true)
						if tube.Kind == bus.Queue {
							f.count.Add(1)
						}
					}
				}
			}
		})
	}
	return f
}

// EachKilled has messages go through a queue while each server of a cluster is
// killed in turn and started again, and checks that none that was confirmed is
// lost. look, if not nil, is called when the queue is there.
func EachKilled(t *testing.T, d bus.Driver, servers []*testserver.Process, look func()) {
	t.Helper()
	f := StartTraffic(t, d, bus.Tube{Name: "cbsd_zpool1"})
	f.Goes(t, 100)
	if look != nil {
		look()
	}
	for _, p := range servers {
		p.Kill(t)
		t.Logf("works %v after a server was killed", f.Goes(t, 100))
		p.Start(t)
	}
	f.Goes(t, 100)
	f.End(t)
}

// Goes returns after how long n more messages were confirmed on the queue.
func (f *Traffic) Goes(t *testing.T, n int64) time.Duration {
	t.Helper()
	begin, target := time.Now(), f.count.Load()+n
	testserver.Eventually(t, patience, func() error {
		if got := f.count.Load(); got < target {
			return fmt.Errorf("%d messages confirmed, want %d", got, target)
		}
		return nil
	})
	return time.Since(begin)
}

// End stops the writers and checks that all that was confirmed has come, and that
// nothing was stored twice.
func (f *Traffic) End(t *testing.T) {
	t.Helper()
	f.stopWriting()
	f.writers.Wait()
	testserver.Eventually(t, patience, func() error {
		if n := f.missing(); n > 0 {
			return fmt.Errorf("%d of %d confirmed messages have not come", n, f.count.Load())
		}
		return nil
	})
	f.rest(t)
	t.Logf("%d messages confirmed, none lost, %d delivered again", f.count.Load(), f.again.Load())
}

// EndLossy is End with servers that may lose what they have confirmed.
func (f *Traffic) EndLossy(t *testing.T) {
	t.Helper()
	f.stopWriting()
	f.writers.Wait()
	f.rest(t)
	t.Logf("NOT CHECKED: %d messages confirmed, %d have not come", f.count.Load(), f.missing())
}

// missing is how many of the confirmed messages have not come.
func (f *Traffic) missing() (n int) {
	f.confirmed.Range(func(k, _ any) bool {
		if _, ok := f.received.Load(k); !ok {
			n++
		}
		return true
	})
	return n
}

// rest stops the readers and checks that nothing was stored twice.
func (f *Traffic) rest(t *testing.T) {
	t.Helper()
	f.stopReading()
	f.readers.Wait()
	if n := f.doubled.Load(); n > 0 {
		t.Errorf("%d messages were stored twice", n)
	}
}
