package zeromq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/faultproxy"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestPoolsShareAnAddress has two pools of one process, and one of another
// process, at the same address. The other takes the place when the first ends.
func TestPoolsShareAnAddress(t *testing.T) {
	cfg := bus.Config{URI: testserver.FreeAddr(t)}
	var first, second Opener
	one, closeOne, err := first.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	two, closeTwo, err := first.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	three, closeThree, err := second.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closeThree.Close()
	agents := []*bus.Bus{bus.New(one, bus.Options{}), bus.New(two, bus.Options{}), bus.New(three, bus.Options{MaxWait: 50 * time.Millisecond})}
	client := bus.New(driver(t, cfg), bus.Options{MaxWait: 50 * time.Millisecond})
	defer client.Close()
	defer agents[2].Close()
	through := func(which int) {
		t.Helper()
		ctx := within(t, 20*time.Second)
		q := bus.Tube{Name: fmt.Sprint("pool", which)}
		n, err := agents[which].Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{q}})
		if err != nil {
			t.Fatalf("pool %d: %v", which, err)
		}
		defer n.Close()
		done := make(chan error, 1)
		go func() {
			for { // the server may be changing
				r := client.Put(ctx, bus.Message{Tube: q, Body: []byte("x")})[0]
				if r.Err == nil || ctx.Err() != nil {
					done <- r.Err
					return
				}
			}
		}()
		for answered := false; !answered; {
			ds, err := n.Receive(ctx, 1)
			if err != nil {
				t.Fatalf("pool %d: %v", which, err)
			}
			_ = n.Ack(ctx, ds...)
			select {
			case err := <-done:
				if err != nil {
					t.Fatalf("pool %d: putting: %v", which, err)
				}
				answered = true
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	for i := range agents {
		through(i)
	}
	for i, c := range []interface{ Close() error }{agents[0], closeOne, agents[1], closeTwo} {
		if err := c.Close(); err != nil {
			t.Errorf("closing %d: %v", i, err)
		}
	}
	through(2)
}

func TestPoolsWithOtherKeys(t *testing.T) {
	file, _, _ := keyFile(t)
	var o Opener
	_, c, err := o.Open(bus.Config{URI: "127.0.0.1:5555"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := o.Open(bus.Config{URI: "tcp://127.0.0.1", CurveKey: file}); err == nil || !strings.Contains(err.Error(), "with other keys") {
		t.Errorf("%v; want an error about other keys", err)
	}
}

// TestNotOurAddress checks that an agent says so where it cannot listen.
func TestNotOurAddress(t *testing.T) {
	file, _, _ := keyFile(t)
	d, c, err := (&Opener{}).Open(bus.Config{URI: "192.0.2.1", CurveKey: file})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = d.Dial(within(t, 10*time.Second))
	if _, permanent := errors.AsType[*bus.Permanent](err); !permanent || !strings.Contains(err.Error(), "not an address of this host") || cbsdmq.HintOf(err) == "" {
		t.Errorf("%v; want a permanent error with a hint", err)
	}

	// Something else is there.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("SSH-2.0-OpenSSH\r\n"))
			c.Close()
		}
	}()
	d, c, err = (&Opener{}).Open(bus.Config{URI: ln.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err = d.Dial(within(t, 10*time.Second)); err == nil || !strings.Contains(err.Error(), "SSH-2.0") {
		t.Errorf("%v; want an error that says who is there", err)
	}
}

// TestMailIsBounded checks that replies which nobody reads make room for others.
func TestMailIsBounded(t *testing.T) {
	c := serve(t, bus.Config{URI: testserver.FreeAddr(t)})
	body := make([]byte, maxBody)
	const many = mailMax/maxBody + 20
	for i := range many {
		m := bus.Message{Tube: bus.Tube{Name: fmt.Sprint("m", i), Kind: bus.Mailbox}, Body: body, TTL: time.Hour}
		if err := c.Put(within(t, 20*time.Second), m)[0].Err; err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for i := range many {
		info, err := c.Inspect(t.Context(), bus.Tube{Name: fmt.Sprint("m", i), Kind: bus.Mailbox})
		if err != nil {
			t.Fatal(err)
		}
		if info.Ready == 0 && kept > 0 {
			t.Errorf("message %d is gone and older ones are there", i)
		}
		kept += info.Ready
	}
	if kept > mailMax/maxBody || kept < mailMax/maxBody-2 {
		t.Errorf("%d messages of %d bytes are kept, the limit is %d bytes", kept, maxBody, mailMax)
	}
}

// TestQueueIsBounded checks that senders wait where too much waits for the agent,
// and get their turn.
func TestQueueIsBounded(t *testing.T) {
	addr := testserver.FreeAddr(t)
	agent := serve(t, bus.Config{URI: addr})
	q := bus.Tube{Name: "q"}
	ms := make([]bus.Message, queueMax/maxBody+10)
	for i := range ms {
		ms[i] = bus.Message{Tube: q, Body: make([]byte, maxBody)}
	}
	client := dial(t, driver(t, bus.Config{URI: addr}))
	ctx := within(t, 60*time.Second)
	done := make(chan []bus.Result, 1)
	go func() { done <- client.Put(ctx, ms...) }()
	const most = queueMax / (maxBody + perMessage)
	testserver.Eventually(t, 20*time.Second, func() error {
		info, err := agent.Inspect(ctx, q)
		if err == nil && info.Ready != most {
			err = fmt.Errorf("%d messages wait, want %d", info.Ready, most)
		}
		return err
	})
	// One that gives up meanwhile has left nothing.
	other := dial(t, driver(t, bus.Config{URI: addr}))
	testserver.Eventually(t, 20*time.Second, func() error {
		err := other.Put(within(t, 300*time.Millisecond), ms[0])[0].Err
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Put with no room: %v, want the deadline", err)
		}
		if cbsdmq.CodeOf(err) != cbsdmq.CodeUnreachable { // the word of it came late
			return fmt.Errorf("Put with no room: %w, want code unreachable", err)
		}
		return nil
	})
	n, err := agent.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{q}})
	if err != nil {
		t.Fatal(err)
	}
	for got := 0; got < len(ms); {
		ds, err := n.Receive(ctx, 256)
		if err != nil {
			t.Fatalf("%d of %d: %v", got, len(ms), err)
		}
		got += len(ds)
		if err := n.Ack(ctx, ds...); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range <-done {
		if r.Err != nil {
			t.Errorf("message %d: %v", i, r.Err)
		}
	}
}

// TestPeerThatDoesNotRead checks that nobody waits for a client that asks and
// does not listen.
func TestPeerThatDoesNotRead(t *testing.T) {
	addr := testserver.FreeAddr(t)
	agent := serve(t, bus.Config{URI: addr})
	m := bus.Tube{Name: "m", Kind: bus.Mailbox}
	ms := make([]bus.Message, 60)
	for i := range ms {
		ms[i] = bus.Message{Tube: m, Body: make([]byte, maxBody), TTL: time.Hour}
	}
	for _, r := range agent.Put(within(t, 60*time.Second), ms...) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := newPipe(c)
	if _, err := p.handshake(false, nil); err != nil {
		t.Fatal(err)
	}
	for i := range ms {
		for j, f := range text("GET", fmt.Sprint(i), "0", "1", "0", "m") {
			fr := frame{flagMore, f}
			if j == 5 {
				fr.flags = 0
			}
			if err := p.write(fr); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.w.Flush()
	testserver.Eventually(t, 20*time.Second, func() error {
		if _, err := c.Write([]byte("\x04\x05\x04NOOP")); err == nil {
			return errors.New("the connection is still there")
		}
		return nil
	})
	testserver.Eventually(t, 20*time.Second, func() error {
		info, err := agent.Inspect(within(t, 10*time.Second), m)
		if err == nil && info.Ready != len(ms) {
			err = fmt.Errorf("%d of %d messages are back", info.Ready, len(ms))
		}
		return err
	})
}

// TestLateAnswer checks that messages which come when nobody waits for them any
// more go back.
func TestLateAnswer(t *testing.T) {
	addr := testserver.FreeAddr(t)
	agent := serve(t, bus.Config{URI: addr})
	proxy := faultproxy.Start(t, addr)
	c := dial(t, driver(t, bus.Config{URI: proxy.Addr()}))
	m := bus.Tube{Name: "m", Kind: bus.Mailbox}
	n, err := c.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{m}})
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Put(t.Context(), bus.Message{Tube: m, Body: []byte("x")})[0].Err; err != nil {
		t.Fatal(err)
	}
	proxy.Mute(true)
	late := make(chan error, 1)
	ctx, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	go func() {
		_, err := n.Receive(ctx, 1)
		late <- err
	}()
	testserver.Eventually(t, 10*time.Second, func() error { // it is on its way
		info, err := agent.Inspect(t.Context(), m)
		if err == nil && info.Ready != 0 {
			err = errors.New("nobody has taken it")
		}
		return err
	})
	giveUp()
	if err := <-late; !errors.Is(err, context.Canceled) {
		t.Errorf("Receive: %v, want the end of its context", err)
	}
	proxy.Mute(false)
	other, err := agent.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{m}})
	if err != nil {
		t.Fatal(err)
	}
	if ds, err := other.Receive(within(t, 20*time.Second), 1); err != nil || string(ds[0].Body) != "x" {
		t.Errorf("%d deliveries, %v; want the one that was late", len(ds), err)
	}
}

// TestWaiterGone checks that nothing goes to a consumer whose connection ended
// while it waited.
func TestWaiterGone(t *testing.T) {
	addr := testserver.FreeAddr(t)
	agent := serve(t, bus.Config{URI: addr})
	c := dial(t, driver(t, bus.Config{URI: addr}))
	m := bus.Tube{Name: "m", Kind: bus.Mailbox}
	n, err := c.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{m}})
	if err != nil {
		t.Fatal(err)
	}
	waiting := func(want int) {
		t.Helper()
		testserver.Eventually(t, 10*time.Second, func() error {
			info, err := agent.Inspect(t.Context(), m)
			if err == nil && info.Consumers != want {
				err = fmt.Errorf("%d wait, want %d", info.Consumers, want)
			}
			return err
		})
	}
	go n.Receive(t.Context(), 1)
	waiting(1)
	c.link.close() // at once
	waiting(-1)
	if err := agent.Put(t.Context(), bus.Message{Tube: m, Body: []byte("x")})[0].Err; err != nil {
		t.Fatal(err)
	}
	other, err := agent.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{m}})
	if err != nil {
		t.Fatal(err)
	}
	if ds, err := other.Receive(within(t, 20*time.Second), 1); err != nil || string(ds[0].Body) != "x" {
		t.Errorf("%d deliveries, %v", len(ds), err)
	}
}
