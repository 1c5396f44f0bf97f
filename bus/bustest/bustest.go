// Package bustest is the contract of package bus as tests, and a suite of
// faults: servers killed, frozen and absent, connections cut, words lost.
// Every driver runs it against the real server:
//
//	func TestBus(t *testing.T) {
//		bustest.Run(t, func(t *testing.T) bustest.Server {
//			p := testserver.Beanstalkd(t)
//			return bustest.Server{Driver: driver(t, p.Addr), Addr: p.Addr, ...}
//		})
//	}
package bustest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A Server is a running, empty broker that ends with the test it was started
// for. Tests that need a field which is not set are skipped.
type Server struct {
	Driver bus.Driver

	Kill  func(testing.TB) // ends the broker at once, as SIGKILL does
	Start func(testing.TB) // starts it again, with the same data at the same address
	Stop  func(testing.TB) // freezes it, as SIGSTOP does
	Cont  func(testing.TB) // ends Stop

	Addr  string                       // host:port of the server, to put a proxy before it
	At    func(addr string) bus.Driver // a driver like Driver for another address
	Tubes func(testing.TB) int         // how many tubes, streams or the like the broker has

	// Mailboxes is how many are opened to see that none leaves anything; 0 = 1000.
	Mailboxes int

	// Library is what the stack of a goroutine of the broker's client library
	// contains, such as "nats-io/nats.go.". None may be left in the end.
	Library string

	queues *Server // of a bus without a broker, see keeping
}

// Run runs the whole suite. The contract's tests share one server, each of the
// faults has its own.
func Run(t *testing.T, start func(*testing.T) Server) {
	t.Run("Contract", func(t *testing.T) { contract(t, start(t)) })
	t.Run("Faults", func(t *testing.T) { faults(t, start) })
}

func contract(t *testing.T, s Server) {
	if s.Driver.Caps().Brokerless {
		t.Run("Brokerless", func(t *testing.T) { run(t, s, ofBrokerless) })
	}
	run(t, s.keeping(), []test{
		{"AckedIsNotRedelivered", testAcked},
		{"UnackedComesBack", testUnacked},
		{"Release", testRelease},
		{"ReleasedKeepsItsPlace", testPlace},
		{"Age", testAge},
		{"IDs", testIDs},
		{"BatchesAndOrder", testBatches},
		{"ConsumersShare", testShare},
		{"ManyTubes", testManyTubes},
		{"SeveralTubes", testSeveralTubes},
		{"ConcurrentPut", testConcurrentPut},
		{"Bodies", testBodies},
		{"MaxBody", testMaxBody},
		{"Limit", testLimit},
		{"BadTube", testBadTube},
		{"ReceiveEndsWithContext", testReceiveContext},
		{"CancelledReceiveLosesNothing", testCancelledReceive},
		{"AckAfterCancelledReceive", testAckAfterCancel},
		{"CancelledPut", testCancelledPut},
		{"CloseUnblocks", testCloseUnblocks},
		{"Inspect", testInspect},
		{"LateReader", testLateReader},
		{"TTL", testTTL},
		{"Expire", testExpire},
		{"Sweep", testSweep},
		{"ManyMailboxes", testManyMailboxes},
	})
}

type test struct {
	name string
	test func(*testing.T, Server)
}

// run runs tests with one server.
func run(t *testing.T, s Server, tests []test) {
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			noneLeft(t, &s.Library)
			c.test(t, s)
		})
	}
}

func faults(t *testing.T, start func(*testing.T) Server) {
	for _, c := range []test{
		{"KillLosesNothingConfirmed", testKill},
		{"KillGivesBack", testKillGivesBack},
		{"Frozen", testFrozen},
		{"Absent", testAbsent},
		{"Cut", testCut},
		{"HalfClosed", testHalfClosed},
		{"Slow", testSlow},
		{"LostConfirmation", testLostConfirmation},
		{"LostAck", testLostAck},
		{"Silent", testSilent},
		{"Garbage", testGarbage},
		{"EndlessLine", testEndlessLine},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s Server
			noneLeft(t, &s.Library)
			s = start(t).keeping()
			c.test(t, s)
		})
	}
}

// limit is the time that anything may take which is expected to happen.
const limit = 20 * time.Second

// short is the time after which we believe that nothing more comes.
const short = 150 * time.Millisecond

// within returns a context for what must happen soon.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// queue and mailbox return a tube of the test's own.
func queue(t testing.TB, suffix ...any) bus.Tube   { return tube(t, bus.Queue, suffix) }
func mailbox(t testing.TB, suffix ...any) bus.Tube { return tube(t, bus.Mailbox, suffix) }

func tube(t testing.TB, kind bus.Kind, suffix []any) bus.Tube {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, t.Name())
	return bus.Tube{Name: name + fmt.Sprint(suffix...), Kind: kind}
}

func dial(t testing.TB, d bus.Driver) bus.Conn {
	t.Helper()
	c, err := d.Dial(within(t, limit))
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// opener is what bus.Conn and *bus.Bus have in common.
type opener interface {
	Put(context.Context, ...bus.Message) []bus.Result
	Consume(context.Context, bus.ConsumeOptions) (bus.Consumer, error)
}

func consume(t testing.TB, c opener, tubes ...bus.Tube) bus.Consumer {
	t.Helper()
	return consumeMax(t, c, 0, tubes...)
}

func consumeMax(t testing.TB, c opener, maxBody int, tubes ...bus.Tube) bus.Consumer {
	t.Helper()
	n, err := c.Consume(within(t, limit), bus.ConsumeOptions{Tubes: tubes, MaxBody: maxBody})
	if err != nil {
		t.Fatalf("consuming: %v", err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// put puts one message for each body and returns their ids.
func put(t testing.TB, c opener, to bus.Tube, bodies ...string) []uint64 {
	t.Helper()
	ms := make([]bus.Message, len(bodies))
	for i, b := range bodies {
		ms[i] = bus.Message{Tube: to, Body: []byte(b), TTL: time.Hour}
	}
	rs := c.Put(within(t, limit), ms...)
	if len(rs) != len(ms) {
		t.Fatalf("%d results for %d messages", len(rs), len(ms))
	}
	ids := make([]uint64, len(rs))
	for i, r := range rs {
		if r.Err != nil {
			t.Fatalf("putting message %d of %d: %v", i+1, len(rs), r.Err)
		}
		ids[i] = r.ID
	}
	return ids
}

// receive receives n messages, by as many calls as it takes.
func receive(t testing.TB, c bus.Consumer, n int) []bus.Delivery {
	t.Helper()
	ctx := within(t, limit)
	var all []bus.Delivery
	for len(all) < n {
		ds, err := c.Receive(ctx, n-len(all))
		if err != nil {
			t.Fatalf("receiving message %d of %d: %v", len(all)+1, n, err)
		}
		if len(ds) == 0 || len(ds) > n-len(all) {
			t.Fatalf("received %d messages, want 1 to %d", len(ds), n-len(all))
		}
		all = append(all, ds...)
	}
	return all
}

// take receives n messages and acknowledges them.
func take(t testing.TB, c bus.Consumer, n int) []bus.Delivery {
	t.Helper()
	ds := receive(t, c, n)
	ack(t, c, ds...)
	return ds
}

func ack(t testing.TB, c bus.Consumer, ds ...bus.Delivery) {
	t.Helper()
	if err := c.Ack(within(t, limit), ds...); err != nil {
		t.Fatalf("acknowledging: %v", err)
	}
}

// nothing checks that nothing more comes.
func nothing(t testing.TB, c bus.Consumer) {
	t.Helper()
	ds, err := c.Receive(within(t, short), 10)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("received %q, %v; want nothing until the deadline", bodies(ds), err)
	}
}

func bodies(ds []bus.Delivery) []string {
	var s []string
	for _, d := range ds {
		s = append(s, string(d.Body))
	}
	return s
}

func numbered(n int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = fmt.Sprintf("%04d", i)
	}
	return s
}

// ready waits until n messages wait in the tube.
func ready(t testing.TB, c bus.Conn, tube bus.Tube, n int) {
	t.Helper()
	testserver.Eventually(t, limit, func() error {
		info, err := c.Inspect(within(t, limit), tube)
		if err != nil {
			return err
		}
		if info.Ready != n {
			return fmt.Errorf("%d messages ready in %s, want %d", info.Ready, tube.Name, n)
		}
		return nil
	})
}

// lines is a log that counts.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// exactly checks that the log has n lines.
func (l *lines) exactly(t testing.TB, n int) {
	t.Helper()
	if got := strings.Count(l.String(), "\n"); got != n {
		t.Fatalf("%d log lines, want %d:\n%s", got, n, l)
	}
}

// maxWait is the ceiling of the buses under test.
const maxWait = 300 * time.Millisecond

// open returns a bus over d and its log.
func open(t testing.TB, d bus.Driver) (*bus.Bus, *lines) {
	t.Helper()
	log := &lines{}
	b := bus.New(d, bus.Options{
		Log:         slog.New(slog.NewTextHandler(log, nil)),
		MaxWait:     maxWait,
		DialTimeout: 2 * time.Second,
	})
	t.Cleanup(func() { b.Close() })
	return b, log
}

// goroutines returns the stacks of the goroutines that a bus, its driver or the
// driver's library runs, by number.
func goroutines(library string) map[string]string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	found := map[string]string{}
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		ours := strings.Contains(stack, "/cbsdmq/bus") || library != "" && strings.Contains(stack, library)
		if ours && !strings.Contains(stack, "testing.tRunner") {
			id, _, _ := strings.Cut(stack, " [")
			found[id] = stack
		}
	}
	return found
}

// noneLeft checks, after the cleanups that are registered from now on, that no
// goroutine is left which did not run before.
func noneLeft(t *testing.T, library *string) {
	before := goroutines(*library)
	t.Cleanup(func() {
		testserver.Eventually(t, limit, func() error {
			for id, stack := range goroutines(*library) {
				if _, ok := before[id]; !ok {
					return fmt.Errorf("left behind:\n%s", stack)
				}
			}
			return nil
		})
	})
}
