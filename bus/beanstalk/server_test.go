package beanstalk

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

var q = bus.Tube{Name: "cbsd_pool1"}

func dial(t testing.TB, d *Driver) bus.Conn {
	t.Helper()
	c, err := d.Dial(t.Context())
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func put(t testing.TB, c bus.Conn, to bus.Tube, bodies ...string) []uint64 {
	t.Helper()
	var ids []uint64
	for _, body := range bodies {
		r := c.Put(t.Context(), bus.Message{Tube: to, Body: []byte(body)})[0]
		if r.Err != nil {
			t.Fatalf("putting: %v", r.Err)
		}
		ids = append(ids, r.ID)
	}
	return ids
}

func consume(t testing.TB, c bus.Conn, tubes ...bus.Tube) bus.Consumer {
	t.Helper()
	n, err := c.Consume(t.Context(), bus.ConsumeOptions{Tubes: tubes})
	if err != nil {
		t.Fatalf("consuming: %v", err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func receive(t testing.TB, n bus.Consumer) bus.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ds, err := n.Receive(ctx, 1)
	if err != nil {
		t.Fatalf("receiving: %v", err)
	}
	return ds[0]
}

func inspect(t testing.TB, d *Driver) bus.Info {
	t.Helper()
	info, err := dial(t, d).Inspect(t.Context(), q)
	if err != nil {
		t.Fatalf("inspecting: %v", err)
	}
	return info
}

// TestAsOriginal checks what other programs see of a job of ours, and that we
// read theirs.
func TestAsOriginal(t *testing.T) {
	p := testserver.Beanstalkd(t)
	d, err := New(bus.Config{URI: p.Addr, PublishTimeout: 2.5})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, d)
	id := put(t, c, q, `{"Command":"jls"}`)[0]
	other := dialRaw(t, p.Addr)
	other.say("watch %s\r\n", q.Name)
	if got, want := other.say("reserve-with-timeout 0\r\n"), fmt.Sprintf("RESERVED %d 17", id); got != want {
		t.Errorf("reserve says %q, want %q", got, want)
	}
	if line, _ := other.r.ReadString('\n'); line != "{\"Command\":\"jls\"}\r\n" {
		t.Errorf("body %q", line)
	}
	var st stats
	err = c.(*conn).exchange(t.Context(), func(w *wire) (err error) {
		st, err = w.job(id)
		return err
	})
	if err != nil || st["pri"] != "1" || st["ttr"] != "3" || st["delay"] != "0" || st["tube"] != q.Name {
		t.Errorf("stats-job: %v, %v; want pri 1, ttr 3, delay 0, tube %s", st, err, q.Name)
	}
	other.say("delete %d\r\n", id)

	other.say("use %s\r\n", q.Name)
	other.say("put 1 0 5 4\r\n{\r\n}\r\n")
	if body := string(receive(t, consume(t, c, q)).Body); body != "{\r\n}" {
		t.Errorf("received %q", body)
	}
}

func TestInspectServer(t *testing.T) {
	for _, c := range []struct {
		name    string
		start   func() *testserver.Process
		durable bool
		max     int
	}{
		{"NoBinlog", func() *testserver.Process { return testserver.BeanstalkdWithoutBinlog(t) }, false, 65535},
		{"Binlog", func() *testserver.Process { return testserver.Beanstalkd(t) }, true, 65533},
		{"Large", func() *testserver.Process { return testserver.Beanstalkd(t, "-z", "1000000") }, true, 999_998},
	} {
		t.Run(c.name, func(t *testing.T) {
			info := inspect(t, at(t, c.start().Addr))
			if !strings.HasPrefix(info.Server, "beanstalkd 1.") || info.Durable != c.durable || info.MaxBody != c.max || info.Instance == "" {
				t.Errorf("%+v; want beanstalkd 1..., durable %v, at most %d bytes", info, c.durable, c.max)
			}
			if durable := info.Advice == ""; durable != c.durable || !durable && !strings.Contains(info.Advice, "-b ") {
				t.Errorf("advice %q", info.Advice)
			}
		})
	}
}

// TestIDBase follows the ids of a server over its restarts.
func TestIDBase(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func() *testserver.Process
		after uint64 // first id after a restart with job 5 of 5 still there
	}{
		{"NoBinlog", func() *testserver.Process { return testserver.BeanstalkdWithoutBinlog(t) }, 1},
		{"Binlog", func() *testserver.Process { return testserver.Beanstalkd(t) }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.start()
			d := at(t, p.Addr)
			first := inspect(t, d)
			ids := put(t, dial(t, d), q, "a", "b", "c")
			again := inspect(t, d)
			last := put(t, dial(t, d), q, "d")[0]
			if first.IDBase != 1 || again.IDBase != 1 || again.Instance != first.Instance {
				t.Errorf("ids begin at %d, then %d, instances %q and %q; want 1 and one instance",
					first.IDBase, again.IDBase, first.Instance, again.Instance)
			}
			if ids[0] < again.IDBase {
				t.Errorf("id %d is below the base %d", ids[0], again.IDBase)
			}
			p.Kill(t)
			p.Start(t)
			info := inspect(t, d)
			want := c.after
			if want == 0 {
				want = last + 1 // of a job that is still there
			}
			if info.IDBase != want || info.Instance == first.Instance {
				t.Errorf("after a restart ids begin at %d, instance %q as before: %v; want %d",
					info.IDBase, info.Instance, info.Instance == first.Instance, want)
			}
			if id := put(t, dial(t, d), q, "e")[0]; id < want {
				t.Errorf("id %d is below the base %d", id, want)
			}
		})
	}
}

// TestIDBaseBusy asks while others put.
func TestIDBaseBusy(t *testing.T) {
	p := testserver.BeanstalkdWithoutBinlog(t)
	d := at(t, p.Addr)
	put(t, dial(t, d), q, "first")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c := dial(t, d)
		for ctx.Err() == nil {
			c.Put(ctx, make5(q)...)
		}
	}()
	for range 20 {
		if base := inspect(t, d).IDBase; base != 1 {
			t.Errorf("ids begin at %d, want 1", base)
		}
	}
	stop()
	<-ended
}

func make5(to bus.Tube) []bus.Message {
	ms := make([]bus.Message, 5)
	for i := range ms {
		ms[i].Tube = to
	}
	return ms
}

// TestBinlogLimit checks that the largest job that we put survives a restart,
// and what follows it. One byte more is what beanstalkd would take and lose.
func TestBinlogLimit(t *testing.T) {
	p := testserver.Beanstalkd(t)
	d := at(t, p.Addr)
	most := inspect(t, d).MaxBody
	c := dial(t, d)
	put(t, c, q, strings.Repeat("x", most), "after")
	if r := c.Put(t.Context(), bus.Message{Tube: q, Body: make([]byte, most+1)})[0]; !errors.Is(r.Err, bus.ErrTooLarge) {
		t.Errorf("%d bytes: %v, want ErrTooLarge", most+1, r.Err)
	}
	p.Kill(t)
	p.Start(t)
	n := consume(t, dial(t, d), q)
	if a, b := receive(t, n), receive(t, n); a.Size != most || string(b.Body) != "after" {
		t.Errorf("after a restart: %d bytes, then %q", a.Size, b.Body)
	}
}

// TestTimeToRun holds a job for longer than its sender allows.
func TestTimeToRun(t *testing.T) {
	p := testserver.BeanstalkdWithoutBinlog(t)
	d := at(t, p.Addr)
	c := dial(t, d)
	raw := dialRaw(t, p.Addr)
	// Where the machine stops for a moment that second is over before the next job
	// is there: then it is tried again.
	for try := range 5 {
		tube := bus.Tube{Name: fmt.Sprint("try", try)}
		raw.say("use %s\r\n", tube.Name)
		raw.say("put 1 0 2 4\r\nheld\r\n")
		n := consume(t, c, tube)
		held := receive(t, n)
		// In the last second the server answers every reserve at once with
		// DEADLINE_SOON; what is put then has to arrive none the less.
		put := make(chan error, 1)
		time.AfterFunc(1300*time.Millisecond, func() {
			put <- c.Put(context.Background(), bus.Message{Tube: tube, Body: []byte("next")})[0].Err
		})
		begin := time.Now()
		var got []string
		for len(got) < 2 {
			got = append(got, string(receive(t, n).Body))
		}
		took := time.Since(begin)
		if err := <-put; err != nil {
			t.Fatalf("putting: %v", err)
		}
		if err := n.Ack(t.Context(), held); err != nil {
			t.Errorf("acknowledging: %v", err)
		}
		if strings.Join(got, " ") == "next held" && took < 4*time.Second {
			return
		}
		t.Logf("received %q within %v", got, took)
	}
	t.Error("what was put while another job came near its end was never received before that")
}

// TestNotOurs settles deliveries that the connection does not hold any more.
func TestNotOurs(t *testing.T) {
	p := testserver.BeanstalkdWithoutBinlog(t)
	c := dial(t, at(t, p.Addr))
	put(t, c, q, "x")
	n := consume(t, c, q)
	held := receive(t, n)
	if err := n.Release(t.Context(), 0, held); err != nil {
		t.Fatalf("releasing: %v", err)
	}
	other := receive(t, consume(t, c, q))
	if other.ID != held.ID {
		t.Fatalf("received job %d, want %d again", other.ID, held.ID)
	}
	if err := n.Release(t.Context(), 0, held); !errors.Is(err, bus.ErrGone) {
		t.Errorf("releasing again: %v, want ErrGone", err)
	}
	if err := n.Ack(t.Context(), held); err != nil {
		t.Errorf("acknowledging: %v", err)
	}
	if err := n.Ack(t.Context(), other); !errors.Is(err, bus.ErrGone) {
		t.Errorf("acknowledging another consumer's delivery: %v, want ErrGone", err)
	}
	if st := ask(t, p.Addr); st["current-jobs-reserved"] != "1" {
		t.Errorf("%s jobs reserved, want the other consumer's", st["current-jobs-reserved"])
	}
}

// TestAckIsPrompt checks that an acknowledgement reaches the server without
// another call, also when a Receive has been given up just before, and over
// Close.
func TestAckIsPrompt(t *testing.T) {
	p := testserver.BeanstalkdWithoutBinlog(t)
	server, err := New(bus.Config{URI: p.Addr, ReserveTimeout: 3600, PublishTimeout: 30}) // a reserve ends for us or not at all
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, server)
	n := consume(t, c, q)
	jobs := func() uint64 {
		st := ask(t, p.Addr)
		return st.number("current-jobs-ready") + st.number("current-jobs-reserved")
	}
	gone := func() {
		t.Helper()
		testserver.Eventually(t, 20*time.Second, func() error {
			if got := jobs(); got != 0 {
				return fmt.Errorf("%d jobs are still there", got)
			}
			return nil
		})
	}
	ack := func(d bus.Delivery) {
		t.Helper()
		if err := n.Ack(t.Context(), d); err != nil {
			t.Fatalf("acknowledging: %v", err)
		}
	}
	put(t, c, q, "x")
	ack(receive(t, n))
	gone()

	put(t, c, q, "x")
	d := receive(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := n.Receive(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("Receive: %v", err)
	}
	ack(d)
	gone()

	// Close ends the reserve of a second behind which the acknowledgement waits.
	var took time.Duration
	for range 5 { // a machine may stop for a moment
		put(t, c, q, "x")
		d = receive(t, n)
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := n.Receive(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Fatalf("Receive: %v", err)
		}
		ack(d)
		begin := time.Now()
		n.Close()
		gone()
		if took = time.Since(begin); took < 300*time.Millisecond {
			return
		}
		n = consume(t, c, q)
	}
	t.Errorf("gone %v after the end of the consumer", took)
}

// TestCloseKeepsAcks closes a consumer right behind an acknowledgement while
// the server is saying something, over and over.
func TestCloseKeepsAcks(t *testing.T) {
	p := testserver.BeanstalkdWithoutBinlog(t)
	c := dial(t, at(t, p.Addr))
	for i := range 50 {
		tube := bus.Tube{Name: fmt.Sprint("round", i)}
		n := consume(t, c, tube)
		put(t, c, tube, make([]string, 40)...)
		var ds []bus.Delivery
		for range 40 {
			ds = append(ds, receive(t, n))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := n.Receive(ctx, 1); err == nil {
			t.Fatal("received something more")
		}
		cancel()
		put(t, c, tube, "unread")
		if err := n.Ack(t.Context(), ds...); err != nil {
			t.Fatalf("acknowledging: %v", err)
		}
		n.Close()
		testserver.Eventually(t, 10*time.Second, func() error {
			info, err := c.Inspect(t.Context(), tube)
			if err == nil && (info.Consumers != 0 || info.Ready != 1) {
				err = fmt.Errorf("%d consumers, %d jobs, want only the unread one", info.Consumers, info.Ready)
			}
			return err
		})
	}
}

// TestManyAcks acknowledges more than one side's buffers hold, in one call and
// without a Receive.
func TestManyAcks(t *testing.T) {
	const many = 20_000
	p := testserver.BeanstalkdWithoutBinlog(t)
	c := dial(t, patient(t, p.Addr))
	ms := make([]bus.Message, many)
	for i := range ms {
		ms[i].Tube = q
	}
	for _, r := range c.Put(t.Context(), ms...) {
		if r.Err != nil {
			t.Fatalf("putting: %v", r.Err)
		}
	}
	n := consume(t, c, q)
	var all []bus.Delivery
	for len(all) < many {
		ds, err := n.Receive(t.Context(), many)
		if err != nil {
			t.Fatalf("receiving: %v", err)
		}
		all = append(all, ds...)
	}
	if err := n.Ack(t.Context(), all...); err != nil {
		t.Fatalf("acknowledging: %v", err)
	}
	if c := n.(*consumer); len(c.owed)-c.next > mostUnread {
		t.Errorf("%d answers are left unread", len(c.owed)-c.next)
	}
	if info, err := c.Inspect(t.Context(), q); err != nil || info.Ready != 0 {
		t.Errorf("%d ready, %v", info.Ready, err)
	}
}

func TestExpireLeavesOthersAlone(t *testing.T) {
	p := testserver.BeanstalkdWithoutBinlog(t)
	c := dial(t, at(t, p.Addr))
	n := consume(t, c, q)
	put(t, c, q, "held", "delayed")
	held, delayed := receive(t, n), receive(t, n)
	if err := n.Release(t.Context(), time.Hour, delayed); err != nil {
		t.Fatalf("releasing: %v", err)
	}
	for _, d := range []bus.Delivery{held, delayed} {
		if err := c.Expire(t.Context(), q.Name, d.ID, 0); err != nil {
			t.Errorf("expiring: %v", err)
		}
	}
	st := ask(t, p.Addr)
	if st["current-jobs-reserved"] != "1" || st["current-jobs-delayed"] != "1" {
		t.Errorf("%s reserved and %s delayed, want 1 and 1", st["current-jobs-reserved"], st["current-jobs-delayed"])
	}
}

func TestDraining(t *testing.T) {
	p := testserver.BeanstalkdWithoutBinlog(t)
	c := dial(t, at(t, p.Addr))
	put(t, c, q, "x")
	p.Signal(t, syscall.SIGUSR1)
	testserver.Eventually(t, 5*time.Second, func() error {
		if ask(t, p.Addr)["draining"] != "true" {
			return errors.New("not draining")
		}
		return nil
	})
	if r := c.Put(t.Context(), bus.Message{Tube: q})[0]; r.Err == nil || !strings.Contains(r.Err.Error(), "draining") {
		t.Errorf("Put: %v", r.Err)
	}
}

func TestNotBeanstalkd(t *testing.T) {
	for _, said := range []string{"SSH-2.0-OpenSSH_9.8\r\n", strings.Repeat("SSH-2.0", 100), "OK 3\r\nSSH-2.0\r\n"} {
		_, err := at(t, scripted(t, func(c *raw) {
			c.Write([]byte(said))
			c.r.ReadString(0) // until it is closed
		})).Dial(t.Context())
		if _, ok := errors.AsType[*bus.Permanent](err); !ok || cbsdmq.CodeOf(err) != cbsdmq.CodeUnreachable || !strings.Contains(err.Error(), "this is no answer of beanstalkd") {
			t.Errorf("%.20q: %v (%T), want a Permanent with code unreachable", said, err, err)
		}
	}
}

// TestSilenceIsNoticed freezes the server: who waits for it without a deadline
// learns that it is gone.
func TestSilenceIsNoticed(t *testing.T) {
	p := testserver.BeanstalkdWithoutBinlog(t)
	d, err := New(bus.Config{URI: p.Addr, ReserveTimeout: 1, PublishTimeout: 30})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, d)
	n := consume(t, c, q)
	put(t, c, q, "x")
	receive(t, n)
	d.answer = time.Second // until here it had time
	p.Stop(t)
	begin := time.Now()
	r := c.Put(t.Context(), bus.Message{Tube: q})[0]
	_, err = n.Receive(t.Context(), 1)
	for _, err := range []error{r.Err, err} {
		if err == nil || !strings.Contains(err.Error(), "did not answer") {
			t.Errorf("%v, want that the server did not answer", err)
		}
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("noticed after %v", took)
	}
	for _, err := range []error{c.Put(t.Context(), bus.Message{Tube: q})[0].Err, n.Ack(t.Context())} {
		if err == nil {
			t.Error("the connection goes on")
		}
	}
}
