package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/faultproxy"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// What is peculiar to Kafka, on one server.
func TestServer(t *testing.T) {
	defer func(old time.Duration) { idleTimeout = old }(idleTimeout)
	idleTimeout = 7 * time.Second // a member beats more often
	p := testserver.Kafka(t)
	for name, test := range map[string]func(*testing.T, *testserver.Process){
		"Foreign": testForeign, "Recreated": testRecreated, "Worn": testWorn, "WornLarge": testWornLarge, "Held": testHeld, "Gone": testGone, "Idle": testIdle,
		"ReadIsGone": testReadIsGone, "Cut": testCut, "Parted": testParted, "Settings": testSettings, "Replicas": testReplicas,
	} {
		t.Run(name, func(t *testing.T) { test(t, p) })
	}
}

// enough is for what a server is to do on a machine that does much else.
const enough = time.Minute

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func queue(t testing.TB) bus.Tube {
	return bus.Tube{Name: strings.ReplaceAll(t.Name(), "/", "_")}
}

func dial(t testing.TB, p *testserver.Process) *conn {
	t.Helper()
	c, err := driver(t, bus.Config{URI: p.Addr}).Dial(within(t, enough))
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*conn)
}

func consume(t testing.TB, c bus.Conn, tube bus.Tube) bus.Consumer {
	t.Helper()
	n, err := c.Consume(within(t, enough), bus.ConsumeOptions{Tubes: []bus.Tube{tube}})
	if err != nil {
		t.Fatalf("consuming: %v", err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func put(t testing.TB, c bus.Conn, tube bus.Tube, body string) uint64 {
	t.Helper()
	r := c.Put(within(t, enough), bus.Message{Tube: tube, Body: []byte(body)})
	if r[0].Err != nil {
		t.Fatalf("putting: %v", r[0].Err)
	}
	return r[0].ID
}

func receive(t testing.TB, n bus.Consumer) bus.Delivery {
	t.Helper()
	ds, err := n.Receive(within(t, enough), 1)
	if err != nil {
		t.Fatalf("receiving: %v", err)
	}
	return ds[0]
}

func take(t testing.TB, n bus.Consumer) bus.Delivery {
	t.Helper()
	d := receive(t, n)
	if err := n.Ack(within(t, enough), d); err != nil {
		t.Fatalf("acknowledging: %v", err)
	}
	return d
}

func nothing(t testing.TB, n bus.Consumer, d time.Duration) {
	t.Helper()
	ds, err := n.Receive(within(t, d), 1)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("received %d messages, %v; want none until the deadline", len(ds), err)
	}
}

// testForeign takes messages that other programs have put.
func testForeign(t *testing.T, p *testserver.Process) {
	q := queue(t)
	c := dial(t, p)
	n := consume(t, c, q)
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ids := map[uint64]bool{}
	for _, r := range []*kgo.Record{{Value: []byte("a")}, {Value: []byte("b"), Key: []byte("some key")}, {Value: nil}} {
		r.Topic = q.Name
		if err := cl.ProduceSync(within(t, enough), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		d := take(t, n)
		if string(d.Body) != string(r.Value) || d.Body == nil || d.ID == 0 || d.ID > 1<<63 || ids[d.ID] {
			t.Errorf("received %q with id %d", d.Body, d.ID)
		}
		ids[d.ID] = true
		if age, err := n.Age(within(t, enough), d); err != nil || age > time.Minute {
			t.Errorf("age %v, %v", age, err)
		}
	}
}

// testRecreated removes a topic under its users: they go on with a new one, and
// no number comes again.
func testRecreated(t *testing.T, p *testserver.Process) {
	q := queue(t)
	b := bus.New(driver(t, bus.Config{URI: p.Addr}), bus.Options{MaxWait: 300 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	defer b.Close()
	n, err := b.Consume(within(t, enough), bus.ConsumeOptions{Tubes: []bus.Tube{q}})
	if err != nil {
		t.Fatal(err)
	}
	adm := admin(t, p.Addr)
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ids := map[uint64]bool{}
	for range 3 {
		testserver.Eventually(t, enough, func() error {
			return b.Put(within(t, enough/4), bus.Message{Tube: q, Body: []byte("x")})[0].Err
		})
		take(t, n)
		cl.PurgeTopicsFromClient(q.Name)
		if err := cl.ProduceSync(within(t, enough), &kgo.Record{Topic: q.Name, Value: []byte("foreign")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		d := take(t, n)
		for string(d.Body) != "foreign" { // one in doubt that was put twice
			d = take(t, n)
		}
		if ids[d.ID] {
			t.Errorf("id %d came again", d.ID)
		}
		ids[d.ID] = true
		if _, err := adm.DeleteTopic(within(t, enough), q.Name); err != nil {
			t.Fatal(err)
		}
	}
}

// testWorn ends a message's consumer more often than Kafka hands one out.
func testWorn(t *testing.T, p *testserver.Process) {
	q := queue(t)
	c := dial(t, p)
	id := put(t, c, q, "x")
	for range 12 {
		n := consume(t, c, q)
		d := receive(t, n)
		if d.ID != id || string(d.Body) != "x" {
			t.Fatalf("received %q with id %d, want id %d", d.Body, d.ID, id)
		}
		n.Close()
	}
	n := consume(t, c, q)
	take(t, n)
	nothing(t, n, 200*time.Millisecond)
}

// testWornLarge does so to one of which Kafka takes no copy: another program has
// put it compressed. It comes as often as Kafka hands it out.
func testWornLarge(t *testing.T, p *testserver.Process) {
	q := queue(t)
	c := dial(t, p)
	put(t, c, q, "first")
	take(t, consume(t, c, q))
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.Addr), kgo.ProducerBatchMaxBytes(4<<20), kgo.ProducerBatchCompression(kgo.GzipCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	const size = 2 << 20
	if err := cl.ProduceSync(within(t, enough), &kgo.Record{Topic: q.Name, Value: make([]byte, size)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for range worn + 2 {
		n := consume(t, c, q)
		if d := receive(t, n); d.Size != size {
			t.Fatalf("received %d bytes, want %d", d.Size, size)
		}
		n.Close()
	}
	n := consume(t, c, q)
	take(t, n)
	nothing(t, n, 200*time.Millisecond)
}

// testHeld holds a message for longer than the broker's lock, while another
// consumer has nothing and asks for nothing, for longer than a connection may.
func testHeld(t *testing.T, p *testserver.Process) {
	if testing.Short() {
		t.Skip("takes 20 s")
	}
	q := queue(t)
	c := dial(t, p)
	n, other := consume(t, c, q), consume(t, c, q)
	put(t, c, q, "x")
	d := receive(t, n)

	var dials atomic.Int32
	counted := driver(t, bus.Config{URI: p.Addr})
	direct := counted.(*Driver).dialer
	counted.(*Driver).dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return direct(ctx, network, addr)
	}
	far, err := counted.Dial(within(t, enough))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	rest := bus.Tube{Name: q.Name + "_rest"}
	quiet := consume(t, far, rest)
	nothing(t, quiet, 200*time.Millisecond) // it has a session now
	before := dials.Load()

	nothing(t, other, 20*time.Second)
	if err := n.Ack(within(t, enough), d); err != nil {
		t.Fatal(err)
	}
	nothing(t, other, 200*time.Millisecond)

	put(t, c, rest, "y")
	receive(t, quiet)
	if after := dials.Load(); after != before {
		t.Errorf("%d connections, %d before: its session has ended", after, before)
	}
}

// testGone ends a consumer as SIGKILL does: the system closes its sockets, and
// nobody says a word. What it had comes again sooner than its lock ends.
func testGone(t *testing.T, p *testserver.Process) {
	q := queue(t)
	c := dial(t, p)
	n, other := consume(t, c, q), consume(t, dial(t, p), q)
	put(t, c, q, "x")
	receive(t, n)
	begin := time.Now()
	_ = c.Fail(errors.New("killed"))
	take(t, other)
	if took, most := time.Since(begin), lockTime(t); took > most-most/10 {
		t.Errorf("came again after %v, its lock is %v", took, most)
	}
}

// lockTime is how long the broker keeps what it has handed out from others.
func lockTime(t testing.TB) time.Duration {
	t.Helper()
	ms, err := strconv.Atoi(lock)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(ms) * time.Millisecond
}

// testIdle has a message come too late for a consumer that then asks for nothing:
// it is not kept from others.
func testIdle(t *testing.T, p *testserver.Process) {
	q := queue(t)
	c := dial(t, p)
	n, other := consume(t, c, q), consume(t, c, q)
	for range 3 {
		ctx, cancel := context.WithCancel(context.Background())
		got := make(chan error, 1)
		go func() {
			_, err := n.Receive(ctx, 1)
			got <- err
		}()
		testserver.Eventually(t, enough, func() error { // it has asked
			n := n.(*consumer)
			n.mu.Lock()
			defer n.mu.Unlock()
			if n.want == 0 {
				return errors.New("it does not ask")
			}
			return nil
		})
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		put(t, c, q, "x")
		begin := time.Now()
		take(t, other)
		if took, most := time.Since(begin), lockTime(t); took > most-most/10 {
			t.Errorf("came after %v, the lock is %v", took, most)
		}
	}
}

// testReadIsGone reads a mailbox a second time.
func testReadIsGone(t *testing.T, p *testserver.Process) {
	m := queue(t)
	m.Kind = bus.Mailbox
	c := dial(t, p)
	put(t, c, m, "read")
	id := put(t, c, m, "unread")
	n := consume(t, c, m)
	if d := take(t, n); string(d.Body) != "read" {
		t.Errorf("received %q", d.Body)
	}
	c.Close()
	again := dial(t, p)
	if info, err := again.Inspect(within(t, enough), m); err != nil || info.Ready != 1 {
		t.Errorf("%d wait, %v; want 1", info.Ready, err)
	}
	n = consume(t, again, m)
	if d := take(t, n); string(d.Body) != "unread" || d.ID != id {
		t.Errorf("received %q with id %d, want id %d", d.Body, d.ID, id)
	}
	nothing(t, n, 200*time.Millisecond)
}

// testCut looks whether what was read goes from the topic.
func testCut(t *testing.T, p *testserver.Process) {
	q := queue(t)
	c := dial(t, p)
	n := consume(t, c, q)
	for i := range 5 {
		put(t, c, q, fmt.Sprint(i))
	}
	for range 3 {
		take(t, n)
	}
	adm := admin(t, p.Addr)
	testserver.Eventually(t, enough, func() error {
		first, err := adm.ListStartOffsets(within(t, enough/4), q.Name)
		if err != nil {
			return err
		}
		if o, _ := first.Lookup(q.Name, 0); o.Offset < 2 { // the group's place is told an acknowledgement late
			return fmt.Errorf("the topic begins at %d, want 2 or 3", o.Offset)
		}
		return nil
	})
	take(t, n)
	take(t, n)
}

// testParted has the broker learn late of the end of a consumer's idle connection:
// what was handed out there is the consumer's no longer.
func testParted(t *testing.T, p *testserver.Process) {
	q := queue(t)
	direct := dial(t, p)
	proxy := faultproxy.Start(t, p.Addr)
	c, err := through(driver(t, bus.Config{URI: proxy.Addr()}), p.Addr, proxy.Addr()).Dial(within(t, enough))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	n := consume(t, c, q)
	put(t, direct, q, "x")
	held := receive(t, n)
	proxy.Part()
	put(t, direct, q, "y")
	if ds, err := n.Receive(within(t, enough), 1); err == nil {
		t.Errorf("received %q on another connection", ds[0].Body)
	}
	if err := n.Ack(within(t, enough), held); err == nil {
		t.Error("acknowledged a delivery of a connection that has ended")
	}
	proxy.Bury()
	other := consume(t, direct, q)
	got := []string{string(take(t, other).Body), string(take(t, other).Body)}
	if slices.Sort(got); !slices.Equal(got, []string{"x", "y"}) { // "x" is free a moment later
		t.Errorf("received %q, want both", got)
	}
	nothing(t, other, 200*time.Millisecond)
}

// testSettings looks at the topics that we make, and at what is said of others.
func testSettings(t *testing.T, p *testserver.Process) {
	q := queue(t)
	c := dial(t, p)
	put(t, c, q, "x")
	put(t, c, bus.Tube{Name: q.Name, Kind: bus.Mailbox}, "x")
	adm := admin(t, p.Addr)
	for topic, want := range map[string]map[string]string{
		q.Name:     {"flush.messages": "1", "retention.ms": "-1", "cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"},
		ReplyTopic: {"flush.messages": "1", "retention.ms": "604800000", "cleanup.policy": "compact,delete"},
	} {
		rs, err := adm.DescribeTopicConfigs(within(t, enough), topic)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range rs[0].Configs {
			if w, ok := want[e.Key]; ok && e.MaybeValue() != w {
				t.Errorf("%s: %s is %s, want %s", topic, e.Key, e.MaybeValue(), w)
			}
		}
	}
	consume(t, c, q)
	for key, want := range map[string]string{reset: earliest, lockFor: lock, limit: deliveries} {
		testserver.Eventually(t, enough, func() error { // brokers hear of it in a while
			if got, err := c.setting(within(t, enough), q.Name, key); err != nil || got != want {
				return fmt.Errorf("group %s: %s is %q, %w; want %s", q.Name, key, got, err, want)
			}
			return nil
		})
	}
	info, err := c.Inspect(within(t, enough), q)
	if err != nil || !info.Durable || info.Advice != "" || !strings.HasPrefix(info.Server, "Apache Kafka v4") {
		t.Errorf("of a topic of ours: %+v, %v", info, err)
	}
	slack := bus.Tube{Name: q.Name + "_other"}
	if _, err := adm.CreateTopic(within(t, enough), 1, 1, nil, slack.Name); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, enough, func() error {
		info, err := c.Inspect(within(t, enough), slack)
		if err == nil && (!strings.Contains(info.Advice, "kafka-configs.sh --bootstrap-server 127.0.0.1:") || !strings.Contains(info.Advice, "flush.messages=1")) {
			err = fmt.Errorf("of a topic that is not synced: %+v", info)
		}
		return err
	})
	// It was there before its group.
	put(t, c, slack, "early")
	take(t, consume(t, c, slack))
}

// testReplicas asks for more copies than there are brokers.
func testReplicas(t *testing.T, p *testserver.Process) {
	q := queue(t)
	c, err := driver(t, bus.Config{URI: p.Addr, Replicas: 3}).Dial(within(t, enough))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Put(within(t, enough), bus.Message{Tube: q})[0].Err
	if _, ok := errors.AsType[*bus.Permanent](err); !ok || !strings.Contains(err.Error(), "kafka.replicas") {
		t.Errorf("got %v", err)
	}
}
