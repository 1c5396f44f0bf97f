package rabbitmq

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A mailbox goes with the reader that leaves it empty. What the broker had sent to
// one that has not read it all is not lost.
func TestReaderLeaves(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := driver(t, bus.Config{URI: testserver.RabbitMQ(t).Addr}).Dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
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
