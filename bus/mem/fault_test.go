package mem_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/mem"
)

var q = bus.Tube{Name: "q"}

func dial(t testing.TB, b *mem.Broker) (bus.Conn, bus.Consumer) {
	t.Helper()
	c, err := b.Driver().Dial(t.Context())
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	n, err := c.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{q}})
	if err != nil {
		t.Fatalf("consuming: %v", err)
	}
	return c, n
}

func put(t testing.TB, c bus.Conn, ms ...bus.Message) []uint64 {
	t.Helper()
	var ids []uint64
	for _, r := range c.Put(t.Context(), ms...) {
		if r.Err != nil {
			t.Fatalf("putting: %v", r.Err)
		}
		ids = append(ids, r.ID)
	}
	return ids
}

func messages(bodies ...string) []bus.Message {
	var ms []bus.Message
	for _, body := range bodies {
		ms = append(ms, bus.Message{Tube: q, Body: []byte(body)})
	}
	return ms
}

// drain receives and acknowledges until nothing comes for a second.
func drain(t testing.TB, n bus.Consumer) (bodies []string) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		ds, err := n.Receive(ctx, 10)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return bodies
		}
		if err != nil {
			t.Fatalf("receiving: %v", err)
		}
		for _, d := range ds {
			bodies = append(bodies, string(d.Body))
		}
		if err := n.Ack(t.Context(), ds...); err != nil {
			t.Fatalf("acknowledging: %v", err)
		}
	}
}

func TestFates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.New(mem.Options{})
		fates := map[string]mem.Fate{"b": mem.Duplicate, "c": mem.Overtaken, "e": mem.Lose}
		b.Hook(mem.Hooks{OnDeliver: func(d bus.Delivery) mem.Fate { return fates[string(d.Body)] }})
		c, n := dial(t, b)
		put(t, c, messages("a", "b", "c", "d", "e", "f")...)
		if diff := cmp.Diff([]string{"a", "b", "b", "d", "c", "f"}, drain(t, n)); diff != "" {
			t.Errorf("received (-want +got):\n%s", diff)
		}
		b.Hook(mem.Hooks{})
		b.Cut()
		_, n = dial(t, b)
		if diff := cmp.Diff([]string{"e"}, drain(t, n)); diff != "" {
			t.Errorf("after the connection ended (-want +got):\n%s", diff)
		}
	})
}

// TestHooksMayCall has a hook cut the connection that it is called for.
func TestHooksMayCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.New(mem.Options{})
		c, _ := dial(t, b)
		b.Hook(mem.Hooks{OnPut: func(bus.Message) (bool, error) {
			b.Cut()
			return true, nil
		}})
		put(t, c, messages("a")...)
		b.Hook(mem.Hooks{})
		if r := c.Put(t.Context(), messages("b")...)[0]; r.Err == nil {
			t.Error("the connection was not cut")
		}
		_, n := dial(t, b)
		if diff := cmp.Diff([]string{"a"}, drain(t, n)); diff != "" {
			t.Errorf("received (-want +got):\n%s", diff)
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.New(mem.Options{})
		inspect := func() bus.Info {
			c, _ := dial(t, b)
			info, err := c.Inspect(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			return info
		}
		c, _ := dial(t, b)
		put(t, c, messages("a", "b")...)
		one := inspect()
		b.Restart(true)
		two := inspect()
		b.Restart(false)
		three := inspect()
		c, _ = dial(t, b)
		got := []uint64{one.IDBase, two.IDBase, three.IDBase, put(t, c, messages("c")...)[0]}
		if diff := cmp.Diff([]uint64{1, 3, 1, 1}, got); diff != "" {
			t.Errorf("bases and the first id after a restart without the messages (-want +got):\n%s", diff)
		}
		if one.Instance == two.Instance || two.Instance == three.Instance || two.Ready != 2 || three.Ready != 0 {
			t.Errorf("over restarts: %+v, %+v, %+v", one, two, three)
		}
		b.Stop()
		if _, err := b.Driver().Dial(t.Context()); err == nil {
			t.Error("a stopped broker takes connections")
		}
	})
}

// TestForgets checks that mailboxes which nobody ever reads do not fill the
// memory once their messages have expired.
func TestForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := mem.New(mem.Options{})
		c, err := b.Driver().Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for i := range 20_000 {
			put(t, c, bus.Message{Tube: bus.Tube{Name: fmt.Sprint("r", i), Kind: bus.Mailbox}, TTL: time.Minute})
			time.Sleep(time.Second)
		}
		if got := b.Tubes(); got > 2500 {
			t.Errorf("%d tubes of which 60 hold something that is younger than its TTL", got)
		}
	})
}

// BenchmarkHop is the cost of a message: put, received, acknowledged.
func BenchmarkHop(b *testing.B) {
	for _, batch := range []int{1, 16} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			broker := mem.New(mem.Options{})
			c, n := dial(b, broker)
			ms := make([]bus.Message, batch)
			for i := range ms {
				ms[i] = bus.Message{Tube: q, Body: make([]byte, 300), TTL: time.Hour}
			}
			b.ReportAllocs()
			for done := 0; done < b.N; done += batch {
				put(b, c, ms...)
				for got := 0; got < batch; {
					ds, err := n.Receive(b.Context(), batch)
					if err != nil {
						b.Fatal(err)
					}
					got += len(ds)
					if err := n.Ack(b.Context(), ds...); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
