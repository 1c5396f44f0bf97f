package rabbitmq

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

var kills = flag.Int("kills", 2, "how often the server is killed behind new queues; it takes about 60 to lose one that is not seen to")

// What was confirmed is there after a kill, also in a queue, or in its reader's
// mailbox, that had just been made.
func TestKilledBehindNewQueue(t *testing.T) {
	p := testserver.RabbitMQ(t)
	d := driver(t, bus.Config{URI: p.Addr})
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+*kills)*2*time.Minute)
	defer cancel()
	dial := func() (c bus.Conn) {
		testserver.Eventually(t, time.Minute, func() (err error) { c, err = d.Dial(ctx); return err })
		return c
	}
	for i := range *kills {
		c := dial()
		tube := bus.Tube{Name: fmt.Sprint("made", i)}
		if i%2 == 1 {
			tube.Kind = bus.Mailbox
			if _, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{tube}}); err != nil {
				t.Fatal(err)
			}
		}
		if r := c.Put(ctx, bus.Message{Tube: tube, Body: []byte("x"), TTL: time.Hour})[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
		p.Kill(t)
		p.Start(t)
		c.Close()
		c = dial()
		if info, err := c.Inspect(ctx, tube); err != nil || info.Ready != 1 {
			t.Errorf("kill %d: %s has %d messages, want 1 (%v)", i, tube.Name, info.Ready, err)
		}
		c.Close()
	}
}

// Behind each queue that is made another one is: a kill shows its want too seldom.
func TestMadeBehind(t *testing.T) {
	defer func(ms int64) { shadowTTL = ms }(shadowTTL)
	shadowTTL = time.Minute.Milliseconds()
	ctx, c := fresh(t)
	read, unread := bus.Tube{Name: "read", Kind: bus.Mailbox}, bus.Tube{Name: "unread", Kind: bus.Mailbox}
	if _, err := c.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{read}}); err != nil {
		t.Fatal(err)
	}
	jobs := bus.Tube{Name: "jobs"}
	for _, tube := range []bus.Tube{jobs, unread} {
		if r := c.Put(ctx, bus.Message{Tube: tube, Body: []byte("x"), TTL: time.Hour})[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	for _, tube := range []bus.Tube{read, jobs, unread} {
		testserver.Eventually(t, time.Minute, func() error {
			ch, err := c.amqp.Channel()
			if err != nil {
				return err
			}
			defer ch.Close()
			_, err = ch.QueueDeclarePassive(tube.Name+"!made", true, false, false, false, nil)
			return err
		})
	}
}
