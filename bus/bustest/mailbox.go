package bustest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

func testLateReader(t *testing.T, s Server) {
	m := mailbox(t)
	sender := dial(t, s.Driver)
	put(t, sender, m, "early")
	sender.Close()
	c := dial(t, s.Driver)
	n := consume(t, c, m)
	put(t, c, m, "late")
	if diff := cmp.Diff([]string{"early", "late"}, bodies(take(t, n, 2))); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
	nothing(t, n)
}

func testTTL(t *testing.T, s Server) {
	if !s.Driver.Caps().TTL {
		s.cannot(t, "the agent looks for what is too old, and removes it")
	}
	m, other := mailbox(t), mailbox(t, "other")
	c, _ := open(t, s.Driver) // a server may end a connection while it is asked again and again
	begin := time.Now()
	const ttl = time.Second
	for _, r := range c.Put(within(t, limit),
		bus.Message{Tube: m, Body: []byte("short"), TTL: ttl},
		bus.Message{Tube: m, Body: []byte("long"), TTL: time.Hour},
		bus.Message{Tube: m, Body: []byte("for ever")},
		bus.Message{Tube: other, Body: []byte("long"), TTL: time.Hour},
	) {
		if r.Err != nil {
			t.Fatalf("putting: %v", r.Err)
		}
	}
	ready(t, c, m, 2)
	if took := time.Since(begin); took < ttl-ttl/5 {
		t.Errorf("gone after %v, want %v", took, ttl)
	}
	if diff := cmp.Diff([]string{"long", "for ever"}, bodies(take(t, consume(t, c, m), 2))); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
	take(t, consume(t, c, other), 1)
}

// testExpire checks that Expire removes the message that it names when it is
// old enough, and never another one.
func testExpire(t *testing.T, s Server) {
	m, other := mailbox(t), mailbox(t, "other")
	c := dial(t, s.Driver)
	expire := func(tube bus.Tube, id uint64, age time.Duration) {
		t.Helper()
		if err := c.Expire(within(t, limit), tube.Name, id, age); err != nil {
			t.Fatalf("Expire(%s, %d, %v): %v", tube.Name, id, age, err)
		}
	}
	begin := time.Now()
	ids := put(t, c, m, "old", "kept")
	if s.Driver.Caps().TTL {
		expire(m, ids[0], 0)
		look, _ := open(t, s.Driver)
		ready(t, look, m, 2)
		return
	}
	const age = time.Second
	testserver.Eventually(t, limit, func() error {
		expire(m, ids[0], time.Hour)     // too young
		expire(other, ids[1], 0)         // of another tube
		expire(m, ids[1]+1_000_000, age) // not there
		expire(m, ids[0], age)
		info, err := c.Inspect(within(t, limit), m)
		if err == nil && info.Ready != 1 {
			err = fmt.Errorf("%d messages, want 1", info.Ready)
		}
		return err
	})
	// They were put a moment before begin, and the server may count in seconds.
	if took := time.Since(begin); took < age/2 {
		t.Errorf("removed after %v, want %v", took, age)
	}
	// One that somebody is reading is not unread.
	n := consume(t, c, m)
	ds := receive(t, n, 1)
	expire(m, ids[1], age)
	if err := n.Release(within(t, limit), 0, ds...); err != nil {
		t.Fatalf("releasing: %v", err)
	}
	if diff := cmp.Diff([]string{"kept"}, bodies(take(t, n, 1))); diff != "" {
		t.Errorf("received (-want +got):\n%s", diff)
	}
	nothing(t, n)
}

// testSweep checks that Sweep removes what is old enough from tubes that match
// and that nobody consumes, and nothing else.
func testSweep(t *testing.T, s Server) {
	c := dial(t, s.Driver)
	if s.Driver.Caps().TTL {
		s.spared(t, "the broker itself drops what nobody reads")
	}
	read, unread, other := mailbox(t, "read"), mailbox(t, "unread"), mailbox(t, "other")
	n := consume(t, c, read)
	begin, removed := time.Now(), 0
	put(t, c, read, "a")
	put(t, c, unread, "b", "c")
	put(t, c, other, "d")
	ds := receive(t, n, 1)
	release := func() {
		if err := n.Release(within(t, limit), 0, ds...); err != nil {
			t.Fatalf("releasing: %v", err)
		}
	}
	release()
	match := func(tube string) bool { return tube == read.Name || tube == unread.Name }
	const age = time.Second
	testserver.Eventually(t, limit, func() error {
		k, err := c.Sweep(within(t, limit), match, age)
		if removed += k; err == nil && removed < 2 {
			err = fmt.Errorf("%d removed, want 2", removed)
		}
		return err
	})
	// They were put a moment before begin, and the server may count in seconds.
	if took := time.Since(begin); took < age/2 {
		t.Errorf("removed after %v, want %v", took, age)
	}
	ready(t, c, unread, 0)
	ready(t, c, other, 1)
	if diff := cmp.Diff([]string{"a"}, bodies(take(t, n, 1))); diff != "" {
		t.Errorf("from the tube with a reader (-want +got):\n%s", diff)
	}
}
