package bustest

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// many is n, and a tenth of it where the tests are to be short.
func many(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}

// tubes counts those of the broker, if that can be done.
func (s Server) tubes(t testing.TB) int {
	if s.Tubes == nil {
		return 0
	}
	return s.Tubes(t)
}

// again is a connection that is dialled again where it ended with a consumer: Close
// waits for a server that is slow at this moment no longer than a second or two.
type again struct {
	bus.Conn
	server Server
	lost   int
}

func (s Server) dialAgain(t testing.TB) *again {
	t.Helper()
	return &again{Conn: dial(t, s.Driver), server: s}
}

// shut closes a consumer of the connection.
func (a *again) shut(t testing.TB, n bus.Consumer) {
	t.Helper()
	err := n.Close()
	if err == nil {
		return
	}
	if a.lost++; a.lost > 3 {
		t.Fatalf("closing, once more: %v", err)
	}
	t.Logf("closing: %v", err)
	a.Close()
	a.Conn = dial(t, a.server.Driver)
}

// testControlLane checks that a request is not stuck behind jobs that wait.
func testControlLane(t *testing.T, s Server) {
	const at, requests, soon = 250, 20, time.Second
	jobs, control := queue(t), queue(t, "_ctl")
	c := dial(t, s.Driver)
	agent := consume(t, c, jobs)
	lane := consume(t, dial(t, s.Driver), control)
	waiting := many(5000)
	for i := 0; i < waiting; i += at {
		put(t, c, jobs, numbered(at)...)
	}
	held := receive(t, agent, 1) // its workers are busy
	client := s.dialAgain(t)
	before := 0
	var took []time.Duration
	for i := range requests {
		// Its own reply address, as each requester has.
		box := bus.Tube{Name: bus.ControlMailbox(jobs.Name, fmt.Sprint(i)), Kind: bus.Mailbox}
		begin := time.Now()
		n := consume(t, client.Conn, box)
		put(t, client.Conn, control, "status")
		take(t, lane, 1)
		put(t, c, box, "queued: many")
		take(t, n, 1)
		took = append(took, time.Since(begin))
		client.shut(t, n)
		if i == 0 { // a connection may keep the tube that it used last
			before = s.tubes(t)
		}
	}
	// One slow moment of the machine is no queue that was waited for.
	if slices.Sort(took); took[requests/2] > soon+slack {
		t.Errorf("requests were answered after %v", took)
	}
	testserver.Eventually(t, limit, func() error {
		if now := s.tubes(t); now > before {
			return fmt.Errorf("%d tubes after the requests, %d before", now, before)
		}
		return nil
	})
	ack(t, agent, held...)
	for left := waiting - 1; left > 0; {
		ds, err := agent.Receive(within(t, limit), at)
		if err != nil {
			t.Fatalf("receiving: %v", err)
		}
		ack(t, agent, ds...)
		left -= len(ds)
	}
	nothing(t, agent)
}

// testLeavesNothing checks that jobs that were done and replies that were read
// leave nothing on the broker. Some of the jobs have a mailbox of their own.
func testLeavesNothing(t *testing.T, s Server) {
	const all, at = 10_000, 500
	jobs, each := queue(t), all/cmp.Or(s.Mailboxes, 1000)
	c := dial(t, s.Driver)
	put(t, c, mailbox(t, "first"), "x")
	take(t, consume(t, c, mailbox(t, "first")), 1)
	put(t, c, jobs, "x") // a broker may have to make the tube first
	take(t, consume(t, c, jobs), 1)
	c.Close()
	before := s.tubes(t)
	c = dial(t, s.Driver)
	agent := consume(t, c, jobs)
	reader := s.dialAgain(t)
	for done := 0; done < many(all); done += at {
		put(t, c, jobs, numbered(at)...)
		take(t, agent, at)
		var ms []bus.Message
		for i := done; i < done+at; i += each {
			ms = append(ms, bus.Message{Tube: mailbox(t, i), Body: fmt.Append(nil, i), TTL: time.Hour})
		}
		for _, r := range c.Put(within(t, limit), ms...) {
			if r.Err != nil {
				t.Fatalf("putting: %v", r.Err)
			}
		}
		for i := done; i < done+at; i += each {
			n, err := reader.Consume(within(t, limit), bus.ConsumeOptions{Tubes: []bus.Tube{mailbox(t, i)}})
			if err != nil {
				t.Fatalf("consuming mailbox %d: %v", i, err)
			}
			if got := string(take(t, n, 1)[0].Body); got != fmt.Sprint(i) {
				t.Errorf("mailbox %d holds %q", i, got)
			}
			reader.shut(t, n)
		}
	}
	nothing(t, agent)
	agent.Close()
	c.Close()
	reader.Close()
	testserver.Eventually(t, limit, func() error {
		if after := s.tubes(t); after > before {
			return fmt.Errorf("%d tubes, want %d as before", after, before)
		}
		return nil
	})
}
