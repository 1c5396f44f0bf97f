package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/mem"
)

var (
	q          = bus.Tube{Name: "cbsd_pool1"}
	errRefused = errors.New("connection refused")
)

// record is a log in memory.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

func open(t testing.TB, b *mem.Broker, o bus.Options) (*bus.Bus, *record) {
	t.Helper()
	log := &record{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	c := bus.New(b.Driver(), o)
	t.Cleanup(func() { c.Close() })
	return c, log
}

// lines checks what the log says, by the beginning of each message.
func lines(t testing.TB, log *record, want ...string) {
	t.Helper()
	var got []string
	for line := range strings.Lines(log.String()) {
		_, msg, _ := strings.Cut(line, "level=")
		got = append(got, msg)
	}
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		ok = ok && strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		t.Errorf("log is\n%swant\n%s", strings.Join(got, ""), strings.Join(want, "\n"))
	}
}

const (
	lost = `WARN msg="broker out of reach" bus=mem addr=memory err=`
	back = `INFO msg="broker back" bus=mem addr=memory took=`
)

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func put(ctx context.Context, b *bus.Bus, body string) error {
	return b.Put(ctx, bus.Message{Tube: q, Body: []byte(body)})[0].Err
}

func consume(t testing.TB, b *bus.Bus) bus.Consumer {
	t.Helper()
	n, err := b.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{q}})
	if err != nil {
		t.Fatalf("consuming: %v", err)
	}
	return n
}

func receive(t testing.TB, n bus.Consumer) bus.Delivery {
	t.Helper()
	ds, err := n.Receive(within(t, time.Hour), 1)
	if err != nil {
		t.Fatalf("receiving: %v", err)
	}
	return ds[0]
}

func ready(t testing.TB, b *bus.Bus) int {
	t.Helper()
	info, err := b.Inspect(t.Context(), q)
	if err != nil {
		t.Fatalf("inspecting: %v", err)
	}
	return info.Ready
}

// TestRate checks that the attempts of all connections together get rarer up
// to the ceiling, and that one line is logged.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		var mu sync.Mutex
		var dials []time.Time
		down := true
		broker.Hook(mem.Hooks{OnDial: func() error {
			mu.Lock()
			defer mu.Unlock()
			if dials = append(dials, time.Now()); down {
				return errRefused
			}
			return nil
		}})
		b, log := open(t, broker, bus.Options{MaxWait: 8 * time.Second})
		begin := time.Now()
		results := make(chan error)
		for range 10 {
			go func() { results <- put(t.Context(), b, "x") }()
			go func() {
				n, err := b.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{q}})
				if err == nil {
					n.Close()
				}
				results <- err
			}()
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		if n := len(dials); n < 2400 || n > 4800+10 {
			t.Errorf("%d attempts in an hour, want one in 0.75 to 1.5 s", n)
		}
		for i := range 3 {
			if d := dials[i+1].Sub(dials[i]); d < 25*time.Millisecond<<i || d > 50*time.Millisecond<<i {
				t.Errorf("attempt %d came %v after the one before", i+2, d)
			}
		}
		if dials[0] != begin {
			t.Errorf("the first attempt came after %v", dials[0].Sub(begin))
		}
		lines(t, log, lost+`"connection refused"`)
		down = false
		mu.Unlock()
		up := time.Now()
		for range 20 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(up); took > 8*time.Second {
			t.Errorf("back after %v", took)
		}
		lines(t, log, lost, back+"1h0m")
	})
}

func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		broker.Stop()
		b, _ := open(t, broker, bus.Options{})
		begin := time.Now()
		err := put(within(t, 3*time.Second), b, "x")
		if cbsdmq.CodeOf(err) != cbsdmq.CodeUnreachable || !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 3*time.Second {
			t.Errorf("Put: %v after %v, want code unreachable at the deadline of 3 s", err, time.Since(begin))
		}
		if cbsdmq.HintOf(err) == "" {
			t.Errorf("no way out of %q", err)
		}
		if want := "mem at memory is out of reach: connection refused"; !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("Put: %v, want %s", err, want)
		}
	})
}

// A dialer that looks at the clock ends a moment before the ctx that it was given
// says so: that is no outage.
func TestDialEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 {
			broker := mem.New(mem.Options{})
			broker.Hook(mem.Hooks{OnDial: func() error {
				time.Sleep(time.Second)
				return os.ErrDeadlineExceeded
			}})
			b, log := open(t, broker, bus.Options{})
			err := put(within(t, time.Second), b, "x")
			if cbsdmq.CodeOf(err) != cbsdmq.CodeUnreachable || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Put: %v, want code unreachable at the deadline", err)
			}
			lines(t, log)
		}
	})
}

// TestNoDialAnswer is a broker that takes connections and is silent.
func TestNoDialAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		broker.Freeze()
		b, log := open(t, broker, bus.Options{DialTimeout: 2 * time.Second})
		time.AfterFunc(time.Minute, broker.Thaw)
		if err := put(within(t, time.Second), b, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Put: %v", err)
		}
		if err := put(t.Context(), b, "x"); err != nil {
			t.Errorf("Put: %v", err)
		}
		lines(t, log, lost, back)
	})
}

func TestPermanent(t *testing.T) {
	wrong := &bus.Permanent{Err: errors.New("wrong password")}
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		dials := 0
		broker.Hook(mem.Hooks{OnDial: func() error { dials++; return wrong }})
		b, log := open(t, broker, bus.Options{})
		begin := time.Now()
		if err := put(t.Context(), b, "x"); !errors.Is(err, wrong) || time.Since(begin) != 0 {
			t.Errorf("Put: %v after %v, want wrong password at once", err, time.Since(begin))
		}
		if _, err := b.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{q}}); !errors.Is(err, wrong) {
			t.Errorf("Consume: %v, want wrong password", err)
		}
		lines(t, log)
	})
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		dials := 0
		broker.Hook(mem.Hooks{OnDial: func() error {
			if dials++; dials > 10 {
				return nil
			}
			return wrong
		}})
		b, log := open(t, broker, bus.Options{KeepTrying: true, MaxWait: time.Minute})
		begin := time.Now()
		if err := put(t.Context(), b, "x"); err != nil || time.Since(begin) != 10*time.Minute {
			t.Errorf("Put: %v after %v, want 10 waits of 1 minute", err, time.Since(begin))
		}
		lines(t, log, lost+`"wrong password"`, back+"10m0s")
	})
}

// TestRelapse has a broker that lets us in and breaks each connection at once:
// that is neither tried nor logged over and over.
func TestRelapse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		dials := 0
		broker.Hook(mem.Hooks{
			OnDial: func() error { dials++; return nil },
			OnPut:  func(bus.Message) (bool, error) { return false, errRefused },
		})
		b, log := open(t, broker, bus.Options{})
		for begin := time.Now(); time.Since(begin) < 10*time.Minute; {
			if err := put(t.Context(), b, "x"); !errors.Is(err, errRefused) {
				t.Fatalf("Put: %v", err)
			}
			if _, err := b.Inspect(t.Context(), q); err != nil { // it is back
				t.Fatalf("Inspect: %v", err)
			}
		}
		if most := 10 * 60 * 2; dials < 10*60/2 || dials > most {
			t.Errorf("%d connections in ten minutes, want at most %d", dials, most)
		}
		if n := strings.Count(log.String(), lost); n < 10 || n > 20 || n-strings.Count(log.String(), back) > 1 {
			t.Errorf("%d times out of reach, want some, and then one a minute:\n%s", n, log)
		}
		broker.Hook(mem.Hooks{})
		time.Sleep(time.Minute)
		broker.Stop()
		_ = put(within(t, time.Second), b, "x")
		broker.Start(true)
		if err := put(t.Context(), b, "y"); err != nil {
			t.Fatal(err)
		}
		if last := log.String()[strings.LastIndex(log.String(), "level="):]; !strings.Contains(last, back) {
			t.Errorf("the last line is %s", last)
		}
	})
}

// TestRefusedAfterOutage has a broker come back that does not let us in any more.
func TestRefusedAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		dials := 0
		broker.Hook(mem.Hooks{OnDial: func() error {
			switch dials++; {
			case dials < 4:
				return errRefused
			case dials < 10:
				return &bus.Permanent{Err: errors.New("wrong password")}
			}
			return nil
		}})
		b, log := open(t, broker, bus.Options{KeepTrying: true})
		if err := put(t.Context(), b, "x"); err != nil {
			t.Fatal(err)
		}
		lines(t, log, lost+`"connection refused"`, lost+`"wrong password"`, back)
	})
}

// TestLostConfirmation checks both endings of a Put whose connection broke:
// the bus sends once and says that it does not know.
func TestLostConfirmation(t *testing.T) {
	for _, stored := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			broker := mem.New(mem.Options{})
			b, log := open(t, broker, bus.Options{})
			puts := 0
			broker.Hook(mem.Hooks{OnPut: func(bus.Message) (bool, error) {
				puts++
				return stored, errors.New("connection reset")
			}})
			if err := put(t.Context(), b, "x"); err == nil || cbsdmq.CodeOf(err) == cbsdmq.CodeUnreachable {
				t.Errorf("stored %v: Put: %v; want an error that leaves it open", stored, err)
			}
			broker.Hook(mem.Hooks{})
			want := 0
			if stored {
				want = 1
			}
			if got := ready(t, b); puts != 1 || got != want {
				t.Errorf("stored %v: %d puts, %d messages, want %d", stored, puts, got, want)
			}
			lines(t, log, lost, back)
		})
	}
}

func TestLostAck(t *testing.T) {
	for _, c := range []struct {
		name    string
		applied bool
		err     error
		again   int
	}{
		{"not applied, not known", false, nil, 1},
		{"not applied, known", false, errors.New("connection reset"), 1},
		{"applied, not known", true, errors.New("connection reset"), 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			broker := mem.New(mem.Options{})
			b, _ := open(t, broker, bus.Options{})
			n := consume(t, b)
			if err := put(t.Context(), b, "x"); err != nil {
				t.Fatal(err)
			}
			d := receive(t, n)
			broker.Hook(mem.Hooks{OnAck: func(bus.Delivery) (bool, error) { return c.applied, c.err }})
			if err := n.Ack(t.Context(), d); !errors.Is(err, c.err) {
				t.Errorf("%s: Ack: %v, want %v", c.name, err, c.err)
			}
			broker.Hook(mem.Hooks{})
			broker.Cut()
			ds, err := n.Receive(within(t, time.Minute), 1)
			if len(ds) != c.again || (err == nil) != (c.again > 0) {
				t.Errorf("%s: %d deliveries afterwards, %v; want %d", c.name, len(ds), err, c.again)
			}
		})
	}
}

// TestSharedConnection checks that a connection from before an outage which
// somebody else noticed is not used for a message.
func TestSharedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		b, log := open(t, broker, bus.Options{})
		n := consume(t, b)
		if err := put(t.Context(), b, "x"); err != nil {
			t.Fatal(err)
		}
		receive(t, n)
		broker.Cut()
		receive(t, n)
		if err := put(t.Context(), b, "y"); err != nil {
			t.Errorf("Put after an outage: %v", err)
		}
		// Nobody notices this one before the message is on its way.
		n.Close()
		broker.Cut()
		if err := put(t.Context(), b, "z"); err == nil {
			t.Error("Put on a connection that was cut has no error")
		}
		if err := put(t.Context(), b, "z"); err != nil {
			t.Errorf("Put again: %v", err)
		}
		lines(t, log, lost, back, lost, back)
	})
}

// A message for the broker of before an outage is not given to the one after it.
func TestPutDuring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		b, _ := open(t, broker, bus.Options{})
		n := consume(t, b)
		before := b.Outages()
		during := func(outages int) error {
			return b.PutDuring(t.Context(), outages, bus.Message{Tube: q, Body: []byte("x")})[0].Err
		}
		if err := during(before); err != nil {
			t.Fatal(err)
		}
		receive(t, n)
		broker.Cut()
		receive(t, n)
		if err := during(before); !errors.Is(err, bus.ErrOutage) {
			t.Errorf("after an outage: %v, want ErrOutage", err)
		}
		if err := during(b.Outages()); err != nil {
			t.Errorf("after it was counted: %v", err)
		}
		if got := ready(t, b); got != 1 {
			t.Errorf("%d messages, want 1", got)
		}
	})
}

// TestOneState has many connections notice one outage at different times.
func TestOneState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		b, log := open(t, broker, bus.Options{})
		var ns []bus.Consumer
		for range 5 {
			ns = append(ns, consume(t, b))
		}
		if err := put(t.Context(), b, "x"); err != nil {
			t.Fatal(err)
		}
		broker.Stop()
		if _, err := ns[0].Receive(within(t, time.Minute), 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Receive: %v", err)
		}
		broker.Start(true)
		for i := range ns {
			receive(t, ns[i])
			ns[i].Close() // gives it back
			time.Sleep(time.Minute)
		}
		if err := put(t.Context(), b, "y"); err != nil {
			t.Errorf("Put: %v", err)
		}
		lines(t, log, lost, back)
	})
}

func TestStaleDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		b, _ := open(t, broker, bus.Options{})
		n, other := consume(t, b), consume(t, b)
		if err := put(t.Context(), b, "x"); err != nil {
			t.Fatal(err)
		}
		old := receive(t, n)
		broker.Cut()
		// Known to be stale or not, it is the driver's word or ours.
		if err := n.Ack(t.Context(), old); err == nil {
			t.Error("Ack over a cut connection has no error")
		}
		now := receive(t, n)
		for name, call := range map[string]func() error{
			"Ack of an old delivery":         func() error { return n.Ack(t.Context(), old, now) },
			"Release of an old delivery":     func() error { return n.Release(t.Context(), 0, old) },
			"Age of an old delivery":         func() error { _, err := n.Age(t.Context(), old); return err },
			"Ack of another's delivery":      func() error { return other.Ack(t.Context(), now) },
			"Ack of something made up":       func() error { return n.Ack(t.Context(), bus.Delivery{ID: now.ID}) },
			"Release of another's delivery ": func() error { return other.Release(t.Context(), 0, now) },
		} {
			if err := call(); !errors.Is(err, bus.ErrGone) {
				t.Errorf("%s: %v, want ErrGone", name, err)
			}
		}
		if got := ready(t, b); got != 0 {
			t.Errorf("%d messages ready", got)
		}
		broker.Cut()
		if ds, err := n.Receive(within(t, time.Minute), 1); err == nil {
			t.Errorf("%q came back, but was acknowledged beside a stale one", ds[0].Body)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		b, _ := open(t, broker, bus.Options{})
		n, late := consume(t, b), consume(t, b)
		broker.Hook(mem.Hooks{})
		errs := make(chan error, 4)
		go func() { _, err := n.Receive(t.Context(), 1); errs <- err }()
		synctest.Wait()
		broker.Freeze()
		go func() { errs <- put(t.Context(), b, "x") }()
		go func() {
			_, err := b.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{q}})
			errs <- err
		}()
		go func() { _, err := b.Inspect(t.Context(), q); errs <- err }()
		synctest.Wait()
		b.Close()
		for range 4 {
			if err := <-errs; !errors.Is(err, bus.ErrClosed) {
				t.Errorf("%v, want ErrClosed", err)
			}
		}
		if _, err := late.Receive(t.Context(), 1); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("Receive after Close: %v", err)
		}
		if err := late.Ack(t.Context()); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("Ack after Close: %v", err)
		}
		if err := put(t.Context(), b, "x"); !errors.Is(err, bus.ErrClosed) {
			t.Errorf("Put after Close: %v", err)
		}
	})
}

// TestPatience lets one caller give up while another one waits on.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{})
		b, log := open(t, broker, bus.Options{})
		if err := put(t.Context(), b, "x"); err != nil {
			t.Fatal(err)
		}
		broker.Freeze()
		patient := make(chan error)
		go func() { patient <- put(within(t, time.Hour), b, "y") }()
		if err := put(within(t, time.Second), b, "z"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Put: %v", err)
		}
		broker.Thaw()
		if err := <-patient; err != nil {
			t.Errorf("the patient Put: %v", err)
		}
		lines(t, log) // nothing was lost
	})
}

// TestRefusedMessage checks that a message which the broker does not take is
// no reason to connect again.
func TestRefusedMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := mem.New(mem.Options{MaxBody: 10})
		dials := 0
		broker.Hook(mem.Hooks{OnDial: func() error { dials++; return nil }})
		b, log := open(t, broker, bus.Options{})
		rs := b.Put(t.Context(),
			bus.Message{Tube: q, Body: make([]byte, 11)},
			bus.Message{Tube: bus.Tube{Name: "a b"}},
			bus.Message{Tube: q, Body: make([]byte, 10)})
		if !errors.Is(rs[0].Err, bus.ErrTooLarge) || !errors.Is(rs[1].Err, bus.ErrBadTube) || rs[2].Err != nil {
			t.Errorf("results %v", rs)
		}
		if _, err := b.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{{Name: "a b"}}}); !errors.Is(err, bus.ErrBadTube) {
			t.Errorf("Consume: %v", err)
		}
		if got := ready(t, b); got != 1 || dials != 2 {
			t.Errorf("%d messages, %d connections; want 1, and 2 with the consumer's", got, dials)
		}
		lines(t, log)
	})
}
