package rabbitmq

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// fresh is a connection to a server of its own.
func fresh(t *testing.T) (context.Context, *conn) {
	t.Helper()
	p := testserver.RabbitMQ(t) // takes as long as it takes
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	c, err := driver(t, bus.Config{URI: p.Addr}).Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return ctx, c.(*conn)
}

// A mailbox goes with the reader that leaves it empty. What the broker had sent to
// one that has not read it all is not lost.
func TestReaderLeaves(t *testing.T) {
	ctx, c := fresh(t)
	box := bus.Tube{Name: "fleeting", Kind: bus.Mailbox}
	const messages = 50
	for i := range messages {
		if r := c.Put(ctx, bus.Message{Tube: box, Body: fmt.Append(nil, i), TTL: time.Hour})[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	for i := range messages {
		n, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{box}})
		if err != nil {
			t.Fatal(err)
		}
		patience, stop := context.WithTimeout(ctx, 10*time.Second)
		ds, err := n.Receive(patience, 1)
		stop()
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", i, messages, err)
		}
		if got := string(ds[0].Body); got != fmt.Sprint(i) {
			t.Errorf("received %s, want %d", got, i)
		}
		if err := n.Ack(ctx, ds...); err != nil {
			t.Fatal(err)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := c.Inspect(ctx, box); err != nil || info.Ready != 0 {
		t.Errorf("%d messages, %v", info.Ready, err)
	}
}

// A mailbox that is removed is made again by whoever puts into it.
func TestMailboxIsMadeAgain(t *testing.T) {
	ctx, c := fresh(t)
	box := bus.Tube{Name: "removed", Kind: bus.Mailbox}
	for i := range 10 {
		n := i%3 + 1
		for _, r := range c.Put(ctx, slices.Repeat([]bus.Message{{Tube: box, Body: []byte("x"), TTL: time.Hour}}, n)...) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		ch, err := c.amqp.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ch.QueueDelete(box.Name, false, false, false); err != nil || got != n {
			t.Fatalf("the mailbox had %d messages of %d, %v", got, n, err)
		}
		ch.Close()
	}
	if len(c.awaited) > 0 {
		t.Errorf("%d messages are still waited for", len(c.awaited))
	}
}

// Putting into a mailbox is no use of it to the broker, so that one that nobody
// reads would go with what was put there a moment ago.
func TestMailboxIsRenewed(t *testing.T) {
	ctx, c := fresh(t)
	ch, err := c.amqp.Channel()
	if err != nil {
		t.Fatal(err)
	}
	const short = 3 * time.Second // in place of MailboxMaxAge
	box := bus.Tube{Name: "unread", Kind: bus.Mailbox}
	if _, err := ch.QueueDeclare(box.Name, true, false, false, false, amqp.Table{"x-expires": short.Milliseconds()}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for begin := time.Now(); time.Since(begin) < 3*short; n++ {
		c.mu.Lock()
		delete(c.renewed, box.Name) // a long time ago
		c.mu.Unlock()
		if r := c.Put(ctx, bus.Message{Tube: box, Body: []byte("x"), TTL: time.Hour})[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if info, err := c.Inspect(ctx, box); err != nil || info.Ready != n {
		t.Errorf("the mailbox has %d messages of %d, %v", info.Ready, n, err)
	}
}
