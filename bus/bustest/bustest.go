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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/brokers"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A Server is a running, empty broker that ends with the test it was started
// for. Tests that need a field which is not set are skipped.
type Server struct {
	// Name is the broker's in the table of brokers, that of testserver.Brokers.
	// "" = it has no place there.
	Name   string
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

	// Logins starts servers that ask who connects, or speak TLS, and tries to
	// connect by drivers of Open; nil: the broker has no such thing.
	Logins func(*testing.T, Login)
	Open   func(testing.TB, bus.Config) bus.Driver
	// Urgent puts a message, as a client of the broker's own, that is to come
	// before those that wait; nil: the broker has no such thing.
	Urgent func(t testing.TB, tube, body string)

	// How says of tests, by name, how the broker does what they see it do. It
	// stands in the table of brokers where the test has passed.
	How map[string]string

	// Library is what the stack of a goroutine of the broker's client library
	// contains, such as "nats-io/nats.go.". None may be left in the end.
	Library string

	queues *Server // of a bus without a broker, see keeping
	answer *answer // of the test that runs
}

// Run runs the whole suite: the contract's tests share one server, those of
// faults another one. Where brokers.Variable is set it writes down what it saw.
func Run(t *testing.T, start func(*testing.T) Server) {
	var r record
	t.Run("Contract", func(t *testing.T) {
		s := start(t)
		r.begin(t, s)
		if s.Driver.Caps().Brokerless {
			t.Run("Brokerless", func(t *testing.T) { runAll(t, &r, s, ofBrokerless) })
		}
		runAll(t, &r, s.keeping(), ofContract)
	})
	t.Run("Faults", func(t *testing.T) {
		r.ran = r.broker.Answers != nil // and not only faults
		var s Server
		for _, c := range ofFaults {
			if s.Driver == nil {
				s = start(t)
				r.begin(t, s)
				s = s.keeping()
			}
			if !r.run(t, c, s) {
				s = Server{} // what is left of it is not for the next one
			}
		}
	})
	r.write(t)
}

func runAll(t *testing.T, r *record, s Server, tests []test) {
	for _, c := range tests {
		r.run(t, c, s)
	}
}

var ofContract = []test{
	{"AckedIsNotRedelivered", "what was acknowledged does not come again", testAcked},
	{"UnackedComesBack", "what was not acknowledged comes again when the connection ends", testUnacked},
	{"Release", "a message can be given back, at once or after a delay", testRelease},
	{"ReleasedKeepsItsPlace", "what is given back comes again before what was put after it", testPlace},
	{"Age", "it is known how long ago a message was put", testAge},
	{"IDs", "sender and receiver know a message by the same number", testIDs},
	{"Batches", "many messages are put and received by one call", testBatches},
	{brokers.Order, "messages of one sender come in their order", testOrder},
	{brokers.Priority, "what another client calls urgent comes first", testPriority},
	{"ConsumersShare", "two consumers share a tube, each message goes to one of them", testShare},
	{"AllBusy", "four consumers of a tube are all busy, none hoards what others could do", testAllBusy},
	{"ManyTubes", "32 tubes at once, and no message in the wrong one", testManyTubes},
	{"SeveralTubes", "one consumer can read several tubes, and is told which", testSeveralTubes},
	{"ConcurrentPut", "eight put at the same time over one connection", testConcurrentPut},
	{"Bodies", "a body is any bytes", testBodies},
	{"MaxBody", "a body that its reader does not want is counted and not kept", testMaxBody},
	{brokers.Limit, "the largest message arrives; one byte more is an error, and the connection goes on", testLimit},
	{"BadTube", "a tube that it cannot have is an error, and nothing is sent", testBadTube},
	{"ReceiveEndsWithContext", "a wait for messages ends when it is told to", testReceiveContext},
	{"CancelledReceiveLosesNothing", "a wait that was ended loses no message", testCancelledReceive},
	{"AckAfterCancelledReceive", "nor what was received before it", testAckAfterCancel},
	{"CancelledPut", "a put that was ended leaves the connection usable", testCancelledPut},
	{"CloseUnblocks", "closing ends who waits", testCloseUnblocks},
	{"Inspect", "it tells its version, how many messages wait, who consumes", testInspect},
	{"ControlLane", "a request does not wait behind 5,000 jobs, and leaves nothing behind", testControlLane},
	{"LateReader", "a reply waits for its reader", testLateReader},
	{"TTL", "the broker itself drops what is past its time", testTTL},
	{"Expire", "a message that is old can be removed unread, and no other is", testExpire},
	{"Sweep", "what nobody reads can be looked for and removed", testSweep},
	{"LeavesNothing", "10,000 jobs and their replies leave no tube and no connection behind", testLeavesNothing},
	{brokers.Login, "a wrong login or certificate fails at once, with the reason", testLogin},
}

var ofFaults = []test{
	{brokers.Durability, "killed twice under load, it has lost nothing that it confirmed", testKill},
	{"KillGivesBack", "killed, it gives back what was not acknowledged", testKillGivesBack},
	{"Frozen", "frozen, it holds no call beyond its deadline", testFrozen},
	{"Absent", "away for 10 seconds, at the start and later: all goes on when it is back", testAbsent},
	{"Cut", "connections that are cut lose nothing", testCut},
	{"HalfClosed", "nor those of which one side is closed", testHalfClosed},
	{"Slow", "a slow network is no fault", testSlow},
	{"LostConfirmation", "where its word is lost the sender is told so, and nothing is sent twice", testLostConfirmation},
	{"LostAck", "an acknowledgement that is lost: the message comes again", testLostAck},
	{"Silent", "who answers nothing is not waited for beyond the deadline", testSilent},
	{"Garbage", "who is not the broker is told from it", testGarbage},
	{"EndlessLine", "an answer without end is not collected", testEndlessLine},
}

// limit is the time that anything may take which is expected to happen, on a
// machine that does much else.
const limit = time.Minute

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
	var all []bus.Delivery
	for len(all) < n {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		ds, err := c.Receive(ctx, n-len(all))
		cancel()
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

// An inspector is a bus.Conn, or a Bus, which goes on where a connection is lost.
type inspector interface {
	Inspect(ctx context.Context, tube bus.Tube) (bus.Info, error)
}

// ready waits until n messages wait in the tube.
func ready(t testing.TB, c inspector, tube bus.Tube, n int) {
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
		DialTimeout: limit / 4, // one that is only slow is no outage, and not to be logged
	})
	t.Cleanup(func() { b.Close() })
	return b, log
}
