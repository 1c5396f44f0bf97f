package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A venue is a broker that runs, for as many pools as come. Each has a tube of
// its own.
type venue struct {
	b       *bench
	broker  testserver.Broker
	at      testserver.Place
	addr    string
	stage   *testserver.Stage
	servers []*testserver.Process // none: the agent brings it
}

// open starts a broker.
func (b *bench) open(k testserver.Broker) (*venue, error) {
	dir, err := os.MkdirTemp(cmp.Or(b.o.serversIn, b.dir), k.Name+"-")
	if err != nil {
		return nil, err
	}
	v := &venue{b: b, broker: k, at: testserver.Place{Dir: dir, Cbsdmq: b.binary}}
	v.stage = testserver.NewStage(dir, func(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) })
	v.stage.Long = true
	if b.o.apart != "" {
		v.stage.Launcher = onProcessors(b.o.apart)
	}
	err = testserver.Guard(func() error { v.addr, v.servers = k.Run(v.stage, v.at); return nil })
	if err != nil {
		v.close()
		return nil, fmt.Errorf("starting %s: %w", k.Name, err)
	}
	return v, nil
}

func (v *venue) close() {
	v.stage.Close()
	os.RemoveAll(v.at.Dir)
}

// with are the keys of a configuration.
func (v *venue) with() map[string]any {
	return map[string]any{"broker": v.broker.Section, v.broker.Section: v.broker.Keys(v.addr, v.at)}
}

// serve serves one pool, by processes of their own.
func (v *venue) serve(ctx context.Context, inFlight int) (*service, error) {
	return v.b.serve(ctx, inFlight, 1, v.with())
}

func (b *bench) openNamed(name string) (*venue, error) {
	found, err := testserver.FindBrokers(name)
	if err != nil {
		return nil, err
	}
	return b.open(found[0])
}

// on serves a pool on a broker of its own.
func (b *bench) on(name string) func(context.Context, int) (*service, error) {
	return func(ctx context.Context, inFlight int) (*service, error) {
		v, err := b.openNamed(name)
		if err != nil {
			return nil, err
		}
		s, err := v.serve(ctx, inFlight)
		if err != nil {
			v.close()
			return nil, err
		}
		s.undo = append([]func(){v.close}, s.undo...)
		return s, nil
	}
}

// warm has a server in Java compile what it does all the time: before that a
// message costs it several times as much.
func (v *venue) warm(ctx context.Context) error {
	const enough = time.Minute // of each
	if _, err := v.through(ctx, 16, enough); err != nil {
		return err
	}
	s, err := v.serve(ctx, 16)
	if err != nil {
		return err
	}
	defer s.close()
	begin := time.Now()
	_, err = s.roundTrips(ctx, 16, func(int) bool { return time.Since(begin) < enough }, false)
	return err
}

// through is how many messages a second are put, confirmed, received and
// acknowledged with so many in flight, with nothing done about them.
func (v *venue) through(ctx context.Context, inFlight int, length time.Duration) (float64, error) {
	s, err := v.serve(ctx, inFlight)
	if err != nil {
		return 0, err
	}
	defer s.close()
	tube := bus.Tube{Name: s.tube + "_through"}
	c, err := s.bus.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{tube}})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	room := make(chan struct{}, inFlight)
	var putting sync.WaitGroup
	defer putting.Wait()
	defer fail(nil)
	putting.Go(func() {
		for ctx.Err() == nil {
			var ms []bus.Message
			for len(ms) < inFlight {
				select {
				case room <- struct{}{}:
					ms = append(ms, bus.Message{Tube: tube, Body: make([]byte, 300)})
					continue
				default:
				}
				if len(ms) > 0 {
					break
				}
				select {
				case room <- struct{}{}:
					ms = append(ms, bus.Message{Tube: tube, Body: make([]byte, 300)})
				case <-ctx.Done():
					return
				}
			}
			for _, r := range s.bus.Put(ctx, ms...) {
				if r.Err != nil {
					fail(fmt.Errorf("putting: %w", r.Err))
				}
			}
		}
	})
	n, begin := 0, time.Now()
	for took := time.Duration(0); took < length; took = time.Since(begin) {
		ds, err := c.Receive(ctx, inFlight)
		if err == nil {
			err = c.Ack(ctx, ds...)
		}
		if err != nil {
			return 0, context.Cause(ctx)
		}
		n += len(ds)
		for range ds {
			<-room
		}
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

// floor is the median time in seconds of what a job with no control plane at all
// would take: a message through the broker and one back, two synced writes, one
// command.
func (v *venue) floor(ctx context.Context) (float64, error) {
	s, err := v.serve(ctx, 1)
	if err != nil {
		return 0, err
	}
	defer s.close()
	var cs [2]bus.Consumer
	tubes := [2]bus.Tube{{Name: s.tube + "_floor"}, {Name: s.reply + "1", Kind: bus.Mailbox}}
	for i, t := range tubes {
		if cs[i], err = s.bus.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{t}}); err != nil {
			return 0, err
		}
		defer cs[i].Close()
	}
	f, err := os.Create(filepath.Join(v.b.dir, "floor"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		return 0, err
	}
	body := make([]byte, 300)
	var took []time.Duration
	for i := range latencyJobs {
		begin := time.Now()
		for j, t := range tubes {
			if err := cross(ctx, s.bus, cs[j], bus.Message{Tube: t, Body: body, TTL: time.Hour}); err != nil {
				return 0, err
			}
			if _, err := f.WriteAt(body, int64(i%1000)*1000); err != nil {
				return 0, err
			}
			if err := f.Sync(); err != nil {
				return 0, err
			}
		}
		if err := forkExec(); err != nil {
			return 0, err
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return took[len(took)/2].Seconds(), nil
}

// cross has a message put, confirmed, received and acknowledged. Where there is
// no broker it is the acknowledgement that confirms it.
func cross(ctx context.Context, b *bus.Bus, c bus.Consumer, m bus.Message) error {
	put := make(chan error, 1)
	send := func() { put <- b.Put(ctx, m)[0].Err }
	if b.Caps().Brokerless {
		go send()
	} else {
		send()
	}
	ds, err := c.Receive(ctx, 1)
	if err != nil {
		return err
	}
	if err := c.Ack(ctx, ds...); err != nil {
		return err
	}
	return <-put
}

// floor is that of a beanstalkd without binlog.
func (b *bench) floor(ctx context.Context) (float64, error) {
	v, err := b.openNamed("beanstalkd-nobinlog")
	if err != nil {
		return 0, err
	}
	defer v.close()
	return v.floor(ctx)
}
