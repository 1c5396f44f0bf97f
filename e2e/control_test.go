package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// On every broker: requests are answered while thousands of jobs wait on the
// broker, for an agent that is full.
func TestControlBehindBacklog(t *testing.T) {
	const waiting, at, requests, soon = 3000, 250, 10, 5 * time.Second
	for _, b := range testserver.Brokers {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			place := testserver.Place{Dir: t.TempDir(), Cbsdmq: program(t, "cbsdmq")}
			addr, _ := b.Run(t, place)
			w := newWorld(t, map[string]any{"broker": b.Section, b.Section: b.Keys(addr, place), "backlog": 10, "workers": 1})
			w.simulate(cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"jcreate": {Delay: 300}}})
			w.agent("")
			w.submit(job("jcreate", "jname=jail1", "ver=empty"))
			w.begun(1)
			out, to := w.open()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for range waiting / at {
				ms := make([]bus.Message, at)
				for i := range ms {
					body, err := json.Marshal(cbsdmq.Job{
						Command: "jset", Args: []cbsdmq.Arg{{Name: "jname", Value: "jail1"}, {Name: "tags", Value: fmt.Sprint(i)}},
						Meta: &cbsdmq.Meta{V: cbsdmq.MetaVersion, ID: ulid.Make().String(), Pool: "pool1"},
					})
					if err != nil {
						t.Fatal(err)
					}
					ms[i] = bus.Message{Tube: bus.Tube{Name: to.Tube}, Body: body}
				}
				if out.Caps().Brokerless { // they wait with their sender
					go out.Put(ctx, ms...)
					continue
				}
				// A server may end a connection, or take its time: what is in doubt is
				// put again.
				testserver.Eventually(t, patience, func() (err error) {
					var left []bus.Message
					for i, r := range out.Put(ctx, ms...) {
						if r.Err != nil {
							left, err = append(left, ms[i]), r.Err
						}
					}
					ms = left
					return err
				})
			}
			testserver.Eventually(t, patience, func() error {
				info, err := out.Inspect(ctx, bus.Tube{Name: to.Tube})
				if err == nil && info.Ready >= 0 && info.Ready < waiting/2 {
					err = fmt.Errorf("only %d wait", info.Ready)
				}
				return err
			})
			took := make([]time.Duration, requests)
			for i := range took {
				begin := time.Now()
				if _, err := w.connect().Status(ctx); err != nil {
					t.Fatalf("asking how the agent is: %v", err)
				}
				if _, err := w.connect().Jobs(ctx, 5, ""); err != nil {
					t.Fatalf("asking for jobs: %v", err)
				}
				took[i] = time.Since(begin)
			}
			slices.Sort(took)
			if took[requests/2] > soon { // one may be slow for reasons of the machine's own
				t.Errorf("the answers took %v", took)
			}
		})
	}
}
