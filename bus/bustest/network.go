package bustest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/faultproxy"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// proxied returns a proxy before the server and the driver that uses it.
func proxied(t testing.TB, s Server) (*faultproxy.Proxy, bus.Driver) {
	t.Helper()
	s.needs(t, s.Addr != "" && s.At != nil)
	p := faultproxy.Start(t, s.Addr)
	return p, s.At(p.Addr())
}

func testCut(t *testing.T, s Server) {
	q := queue(t)
	p, d := proxied(t, s)
	b, log := open(t, d)
	n, m := consume(t, b, q), consume(t, b, queue(t, "other"))
	for i := range 3 {
		heldBody, ackedBody := fmt.Sprint("held ", i), fmt.Sprint("acked ", i)
		put(t, b, q, heldBody, ackedBody)
		var held, acked []bus.Delivery
		for held == nil || acked == nil {
			switch d := receive(t, n, 1); string(d[0].Body) {
			case heldBody:
				held = d
			case ackedBody:
				acked = d
			default: // of the last round: its acknowledgement was lost
				ack(t, n, d...)
			}
		}
		ack(t, n, acked...)
		p.Cut()
		back := receive(t, n, 1)
		for string(back[0].Body) == ackedBody {
			ack(t, n, back...) // nobody waited for its acknowledgement to arrive
			back = receive(t, n, 1)
		}
		if err := n.Ack(within(t, limit), held...); !errors.Is(err, bus.ErrGone) {
			t.Errorf("acknowledging a delivery of before: %v, want ErrGone", err)
		}
		ack(t, n, back...)
		put(t, b, queue(t, "other"), "x")
		take(t, m, 1)
		log.exactly(t, 2*(i+1))
	}
}

func testHalfClosed(t *testing.T, s Server) {
	q := queue(t)
	p, d := proxied(t, s)
	b, log := open(t, d)
	n := consume(t, b, q)
	put(t, b, q, "x")
	receive(t, n, 1)
	p.HalfClose()
	take(t, n, 1)
	put(t, b, q, "y")
	take(t, n, 1)
	log.exactly(t, 2)
}

func testSlow(t *testing.T, s Server) {
	q := queue(t)
	p, d := proxied(t, s)
	p.Delay(50 * time.Millisecond)
	b, log := open(t, d)
	n := consume(t, b, q)
	want := numbered(100)
	put(t, b, q, want...)
	take(t, n, len(want))
	nothing(t, n)
	log.exactly(t, 0)
}

// testLostConfirmation loses the broker's word about a message that it has
// stored: the sender is told that it cannot know, and the bus does not send
// again.
func testLostConfirmation(t *testing.T, s Server) {
	q := queue(t)
	p, d := proxied(t, s)
	direct, _ := open(t, s.Driver) // a server may end a connection while it is asked again and again
	b, _ := open(t, d)
	put(t, b, q, "before") // a broker may have to make the tube first
	first := consume(t, direct, q)
	take(t, first, 1)
	first.Close()
	p.Mute(true)
	result := make(chan error, 1)
	go func() { result <- b.Put(within(t, limit), bus.Message{Tube: q, Body: []byte("x")})[0].Err }()
	ready(t, direct, q, 1)
	p.Cut()
	if err := <-result; err == nil || errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("Put whose confirmation was lost: %v; want an error that leaves it open", err)
	}
	p.Mute(false)
	put(t, b, queue(t, "other"), "y")
	n := consume(t, b, q)
	take(t, n, 1)
	nothing(t, n)
}

// testLostAck loses an acknowledgement: the message comes again.
func testLostAck(t *testing.T, s Server) {
	q := queue(t)
	p, d := proxied(t, s)
	b, _ := open(t, d)
	n := consume(t, b, q)
	put(t, b, q, "x")
	ds := receive(t, n, 1)
	p.Deaf(true)
	// Whether the driver waits for the broker's word is its own affair.
	_ = n.Ack(within(t, short), ds...)
	// One that has not been said yet would be said on the next connection.
	testserver.Eventually(t, limit, func() error {
		if !p.Swallowed() {
			return errors.New("nothing was lost")
		}
		return nil
	})
	p.Cut()
	p.Deaf(false)
	take(t, n, 1)
	nothing(t, n)
}

// impostor accepts connections at the address that it returns and has serve
// answer them.
func impostor(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listening: %v", err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go serve(c)
		}
	}()
	return ln.Addr().String()
}

// testSilent connects to something that accepts and says nothing.
func testSilent(t *testing.T, s Server) {
	s.needs(t, s.At != nil)
	d := s.At(impostor(t, func(net.Conn) {}))
	b, log := open(t, d)
	for _, call := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"Dial and Inspect", func(ctx context.Context) error {
			c, err := d.Dial(ctx)
			if err == nil {
				defer c.Close()
				_, err = c.Inspect(ctx, queue(t))
			}
			return err
		}},
		{"Bus.Put", func(ctx context.Context) error { return b.Put(ctx, bus.Message{Tube: queue(t)})[0].Err }},
		{"Bus.Consume", func(ctx context.Context) error {
			_, err := b.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{queue(t)}})
			return err
		}},
	} {
		const wait = 300 * time.Millisecond
		begin := time.Now()
		err := call.do(within(t, wait))
		if took := time.Since(begin); err == nil || took > wait+slack {
			t.Errorf("%s: %v after %v, want an error after %v", call.name, err, took, wait)
		}
	}
	// Closing ends a call that would wait longer.
	defer time.AfterFunc(short, func() { b.Close() }).Stop()
	if err := b.Put(within(t, limit), bus.Message{Tube: queue(t)})[0].Err; !errors.Is(err, bus.ErrClosed) {
		t.Errorf("Put over Close: %v, want ErrClosed", err)
	}
	log.exactly(t, 0)
}

// testGarbage connects to something that is not the broker.
func testGarbage(t *testing.T, s Server) {
	s.needs(t, s.At != nil)
	const said = "HTTP/1.1 400 Bad Request"
	d := s.At(impostor(t, func(c net.Conn) {
		c.Write([]byte(said + "\r\nContent-Length: 0\r\n\r\n"))
		c.Read(make([]byte, 1<<10))
	}))
	c, err := d.Dial(within(t, limit))
	if err == nil {
		_, err = c.Inspect(within(t, limit), queue(t))
		c.Close()
	}
	if err == nil {
		t.Fatal("no error")
	}
	if !strings.Contains(err.Error(), "HTTP") {
		t.Errorf("the error does not name what was read: %v", err)
	}
}

// testEndlessLine checks that an answer without end is not collected.
func testEndlessLine(t *testing.T, s Server) {
	s.needs(t, s.At != nil)
	const size = 10 << 20
	piece := []byte(strings.Repeat("INFO OK ", 4<<10))
	d := s.At(impostor(t, func(c net.Conn) {
		for n := 0; n < size; n += len(piece) {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	}))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c, err := d.Dial(within(t, time.Second))
	if err == nil {
		_, err = c.Inspect(within(t, time.Second), queue(t))
		c.Close()
	}
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Error("no error")
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 2<<20 {
		t.Errorf("%d bytes allocated for an answer of %d without an end", grown, size)
	}
}
