package clustertest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestCopies makes a queue with one copy, and checks that it gets three where
// they are wanted, and what the survey says before, after, and with a server
// away.
func TestCopies(t *testing.T) {
	t.Parallel()
	c := ours(t, nil)
	c.works(t)
	js, end := c.js(t)
	defer end()
	q := bus.Tube{Name: "q"}
	put := func(cfg bus.Config) {
		t.Helper()
		cfg.URI = c.addrs()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := dial(t, driver(t, cfg)).Put(ctx, bus.Message{Tube: q, Body: []byte("x")})[0].Err; err != nil {
			t.Fatalf("putting: %v", err)
		}
	}
	says := func(uri, want string, warning bool) {
		t.Helper()
		testserver.Eventually(t, patience, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			found, err := driver(t, bus.Config{URI: uri}).Survey(ctx, q)
			if err != nil {
				return err
			}
			for _, f := range found {
				if strings.Contains(f.Text, want) && f.Warning == warning && (f.Hint != "") == warning {
					return nil
				}
			}
			return fmt.Errorf("nothing says %q: %+v", want, found)
		})
	}
	says(c.addrs(), "does not exist yet; it will have 3 copies", false)
	put(bus.Config{Replicas: 1})
	says(c.addrs(), "stream cbsdmq_q_q: 1 copies, led by server", false)
	says(c.addrs(), "has 1 of 3 copies", true)
	put(bus.Config{})
	testserver.Eventually(t, patience, func() error {
		if si := info(t, js, "cbsdmq_q_q"); si.Config.Replicas != 3 || si.State.Msgs < 2 {
			return fmt.Errorf("%d copies of %d messages", si.Config.Replicas, si.State.Msgs)
		}
		return nil
	})
	says(c.addrs(), "cluster cbsd: 3 of 3 servers answer: server1 at "+c[0].Addr, false)
	says(c.addrs(), "stream cbsdmq_q_q: 3 copies, led by server", false)
	says(c[0].Addr+","+c[1].Addr, "does not name server server3", true)
	c[2].Kill(t)
	says(c.addrs(), "2 of 3 servers answer", false)
	says(c.addrs(), c[2].Addr, true)
	says(c.addrs(), "the copy on server3 is ", true)

	// A new queue can be made all the same; the third copy is made when its
	// server is back.
	q = bus.Tube{Name: "new"}
	put(bus.Config{})
	if n := info(t, js, "cbsdmq_q_new").Config.Replicas; n != 3 {
		t.Errorf("%d copies with a server away, want 3", n)
	}
	c[2].Start(t)
	testserver.Eventually(t, patience, func() error { return whole(t, js, "cbsdmq_q_new", "cbsdmq_q_q") })
}
