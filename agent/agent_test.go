package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/mem"
	"github.com/cbsd/cbsdmq/internal/testserver"
	"github.com/cbsd/cbsdmq/journal"
)

// A bench is everything around the agents of a test: they come and go, the
// broker, the pool and the machine stay.
type bench struct {
	t       *testing.T
	dir     string
	broker  *mem.Broker
	machine *fakeMachine
	cbsd    *fakeCBSD
	client  *bus.Bus
	mailbox uint64
	replies bus.Consumer
	got     map[string][]cbsdmq.Reply // final replies by id
	pieces  map[string][]cbsdmq.Reply
	stop    func()
	adjust  func(*Config)
}

func newBench(t *testing.T) *bench {
	b := &bench{
		t: t, dir: t.TempDir(), broker: mem.New(mem.Options{NoTTL: true}), cbsd: &fakeCBSD{}, mailbox: 1 << 52,
		got: make(map[string][]cbsdmq.Reply), pieces: make(map[string][]cbsdmq.Reply), stop: func() {},
	}
	b.machine = newMachine(b.dir)
	b.client = bus.New(b.broker.Driver(), bus.Options{})
	var err error
	b.replies, err = b.client.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{
		{Name: bus.MailboxName("reply", b.mailbox), Kind: bus.Mailbox},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.stop(); b.client.Close() })
	return b
}

// start starts an agent; stop ends it as a crash would, but for what the loop
// is writing at that moment.
func (b *bench) start() *Server {
	b.t.Helper()
	j, err := journal.Open(b.t.Context(), journal.Options{
		Path: filepath.Join(b.dir, "pool", "journal.sqlite"), State: filepath.Join(b.dir, "state"), Host: "host1", Boot: b.machine.boot,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	link := bus.New(b.broker.Driver(), bus.Options{})
	cfg := Config{
		Pool: "pool1", Host: "host1", Boot: b.machine.boot, Command: "cbsd", Journal: j, CBSD: b.cbsd, Dial: b.machine.dial, RunDir: b.dir,
		Endpoints: []Endpoint{{Name: "mem", Bus: link, Tube: "jobs", Prefix: "reply", Timeout: 5 * time.Second}},
		Workers:   4, Readers: 4, Backlog: 100, ReplyTTL: time.Hour, KillGrace: time.Minute,
		Limits: journal.Limits{Results: time.Hour, IDs: 24 * time.Hour},
	}
	if b.adjust != nil {
		b.adjust(&cfg)
	}
	s := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Serve: %v", err)
		}
		link.Close()
		j.Close()
	}
	return s
}

func newID() string { return ulid.Make().String() }

// submit puts a job on the tube and returns its id. args are key=value.
func (b *bench) submit(command string, args ...string) string {
	b.t.Helper()
	return b.put(b.job(command, args...))
}

func (b *bench) job(command string, args ...string) cbsdmq.Job {
	j := cbsdmq.Job{Command: command, JobID: b.mailbox, Meta: &cbsdmq.Meta{V: 1, ID: newID(), Pool: "pool1"}}
	for _, a := range args {
		name, value, _ := strings.Cut(a, "=")
		j.Args = append(j.Args, cbsdmq.Arg{Name: name, Value: value})
	}
	return j
}

func (b *bench) put(j cbsdmq.Job) string {
	b.t.Helper()
	body, err := json.Marshal(j)
	if err != nil {
		b.t.Fatal(err)
	}
	b.raw(string(body))
	if j.Meta == nil {
		return ""
	}
	return j.Meta.ID
}

func (b *bench) raw(body string) uint64 {
	b.t.Helper()
	r := b.client.Put(b.t.Context(), bus.Message{Tube: bus.Tube{Name: "jobs"}, Body: []byte(body)})
	if r[0].Err != nil {
		b.t.Fatal(r[0].Err)
	}
	return r[0].ID
}

// final waits for the last reply of a job.
func (b *bench) final(id string) cbsdmq.Reply {
	b.t.Helper()
	printed := cbsdmq.PrintedID("pool1", id)
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	for len(b.got[printed]) == 0 {
		ds, err := b.replies.Receive(ctx, 16)
		if err != nil {
			b.t.Fatalf("waiting for the end of %s: %v; begun %v", id, err, b.machine.begun)
		}
		b.take(ctx, ds)
	}
	return b.got[printed][0]
}

// take keeps the replies that have come.
func (b *bench) take(ctx context.Context, ds []bus.Delivery) {
	b.t.Helper()
	for _, d := range ds {
		r, err := cbsdmq.ParseReply(d.Body)
		if err != nil {
			b.t.Fatal(err)
		}
		if r.Final() {
			b.got[r.ID] = append(b.got[r.ID], r)
		} else {
			b.pieces[r.ID] = append(b.pieces[r.ID], r)
		}
	}
	if err := b.replies.Ack(ctx, ds...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) want(id string, state cbsdmq.State, code int) cbsdmq.Reply {
	b.t.Helper()
	r := b.final(id)
	if r.State != state || r.ErrCode != code {
		b.t.Errorf("job %s ended %s with %d (%s), want %s with %d", id, r.State, r.ErrCode, r.Reason, state, code)
	}
	return r
}

// running waits until the command of a job runs.
func (b *bench) running(id string) {
	b.t.Helper()
	eventually(b.t, "the command of "+id+" runs", func() bool {
		begun, _ := b.machine.snapshot()
		for _, s := range begun {
			if strings.HasPrefix(s, "pool1/"+id+" ") {
				return true
			}
		}
		return false
	})
}

// finish lets the command of a job end, once it runs.
func (b *bench) finish(id string, status int, output string) {
	b.t.Helper()
	eventually(b.t, "the command of "+id+" can end", func() bool { return b.machine.finish("pool1/"+id, status, output) })
}

// begunOnce checks that no job's command was begun twice and no guest had two
// changes at once.
func (b *bench) begunOnce() {
	b.t.Helper()
	begun, overlap := b.machine.snapshot()
	seen := make(map[string]bool)
	for _, s := range begun {
		id, _, _ := strings.Cut(s, " ")
		if seen[id] {
			b.t.Errorf("%s was begun twice", id)
		}
		seen[id] = true
	}
	if len(overlap) > 0 {
		b.t.Errorf("two changes at once on %v", overlap)
	}
}

func TestRun(t *testing.T) {
	b := newBench(t)
	b.start()
	r := b.want(b.submit("jset", "jname=jail1"), cbsdmq.Done, 0)
	if r.Outcome != cbsdmq.Changed {
		t.Errorf("outcome %q", r.Outcome)
	}
	r = b.want(b.submit("jprint", "hello"), cbsdmq.Done, 0)
	if r.Message != "hello=" || r.Outcome != "" {
		t.Errorf("got %+v", r)
	}
	r = b.want(b.submit("jfail", "jname=jail1"), cbsdmq.Failed, 1)
	if r.Reason != "no luck" || r.Message != "no luck\n" {
		t.Errorf("got %+v", r)
	}
	r = b.want(b.submit("nosuch"), cbsdmq.Refused, cbsdmq.ExitRefused)
	if r.Reason != "Command: unknown" || r.Hint != "try jls" {
		t.Errorf("got %+v", r)
	}
	b.begunOnce()
}

func TestLegacyJob(t *testing.T) {
	b := newBench(t)
	b.start()
	id := b.raw(`{"Command":"jprint","CommandArgs":{"a":"b"}}`)
	c, err := b.client.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{{Name: bus.MailboxName("reply", id), Kind: bus.Mailbox}}})
	if err != nil {
		t.Fatal(err)
	}
	ds, err := c.Receive(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"DskGuid":"0","ErrCode":0,"Guid":"0","Message":"a=b","Progress":100,"Vnc":"","ID":"pool1/%d","State":"done"}`, id)
	if got := string(ds[0].Body); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	body := b.raw(`{"Command":"jprint","CommandArgs":["x"],"JobID":4503599627370496}`)
	r := b.want(fmt.Sprint(body), cbsdmq.Refused, 2)
	if !strings.HasPrefix(r.Reason, "CommandArgs: ") || !strings.HasPrefix(r.Message, "refused: CommandArgs: ") {
		t.Errorf("got %+v", r)
	}
}

// What is wrong with a job must not be kept with it: a sender of 60 KB would be in
// each line about it, and in the journal for a month.
func TestRefusedSenderIsShort(t *testing.T) {
	b := newBench(t)
	b.start()
	j := b.job("jset", "jname=jail1")
	j.Meta.Sender = "\x1b[2J" + strings.Repeat("x", 60_000)
	id := b.put(j)
	b.want(id, cbsdmq.Refused, cbsdmq.ExitRefused)
	row, err := b.row(id)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(row.Sender, "?[2Jxxx") || len(row.Sender) > 80 {
		t.Errorf("%d bytes: %.20q", len(row.Sender), row.Sender)
	}
}

func TestRepeatRunsNothing(t *testing.T) {
	b := newBench(t)
	b.start()
	j := b.job("jstart", "jname=jail1")
	id := b.put(j)
	b.put(j) // while it runs
	b.running(id)
	j.JobID = b.mailbox + 1 // another address
	b.put(j)
	b.finish(id, 0, "started\n")
	b.want(id, cbsdmq.Done, 0)
	b.put(j)
	late, err := b.client.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{{Name: bus.MailboxName("reply", b.mailbox+1), Kind: bus.Mailbox}}})
	if err != nil {
		t.Fatal(err)
	}
	ds, err := late.Receive(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := cbsdmq.ParseReply(ds[0].Body)
	if r.Message != "started\n" || !r.Final() {
		t.Errorf("the second address got %+v", r)
	}
	keyed := b.job("jset", "jname=jail1")
	keyed.Meta.Key = "ORDER-4711"
	first := b.put(keyed)
	b.want(first, cbsdmq.Done, 0)
	keyed.Meta.ID, keyed.JobID = newID(), b.mailbox+2
	b.put(keyed)
	b.want(b.submit("jset", "jname=jail1"), cbsdmq.Done, 0) // behind it
	other := b.job("jset", "jname=jail2")                   // under the key of what was done to another jail
	other.Meta.Key = "ORDER-4711"
	if r := b.want(b.put(other), cbsdmq.Refused, cbsdmq.ExitRefused); !strings.Contains(r.Reason, "ORDER-4711 is the key of other work: jset, ") || !strings.Contains(r.Reason, first) {
		t.Errorf("other work under a key that is taken: %+v", r)
	}
	begun, _ := b.machine.snapshot()
	if len(begun) != 3 {
		t.Errorf("begun: %q", begun)
	}
	b.begunOnce()
}

func TestOrderAndLanes(t *testing.T) {
	b := newBench(t)
	b.start()
	var ids []string
	for i := range 40 {
		ids = append(ids, b.submit("jset", fmt.Sprintf("jname=jail%d", i%4), fmt.Sprintf("n=%d", i)))
	}
	for _, id := range ids {
		b.want(id, cbsdmq.Done, 0)
	}
	begun, _ := b.machine.snapshot()
	last := make(map[string]int)
	for _, s := range begun {
		var guest string
		var n int
		f := strings.Fields(s)
		fmt.Sscanf(f[2], "jname=%s", &guest)
		fmt.Sscanf(f[3], "n=%d", &n)
		if prev, ok := last[guest]; ok && n < prev {
			t.Errorf("%s: %d was begun after %d", guest, n, prev)
		}
		last[guest] = n
	}
	b.begunOnce()
}

func TestAgentRestartAdopts(t *testing.T) {
	b := newBench(t)
	b.start()
	long := b.submit("jstart", "jname=jail1")
	waiting := b.submit("jset", "jname=jail1")
	b.running(long)
	b.stop()
	b.finish(long, 0, "done meanwhile\n") // nobody listens
	b.start()
	if r := b.want(long, cbsdmq.Done, 0); r.Message != "done meanwhile\n" {
		t.Errorf("got %+v", r)
	}
	b.want(waiting, cbsdmq.Done, 0)
	b.begunOnce()
}

func TestRunnerLost(t *testing.T) {
	b := newBench(t)
	b.start()
	change := b.submit("jstart", "jname=jail1")
	b.running(change)
	behind := b.submit("jset", "jname=jail1")
	b.machine.lose()
	r := b.want(change, cbsdmq.Unknown, cbsdmq.ExitUnknown)
	if !strings.Contains(r.Reason, "The guest is off.") {
		t.Errorf("reason %q", r.Reason)
	}
	b.want(behind, cbsdmq.Done, 0)
	b.begunOnce()
}

func TestCancel(t *testing.T) {
	b := newBench(t)
	s := b.start()
	long := b.submit("jstart", "jname=jail1")
	waiting := b.submit("jset", "jname=jail1")
	behind := b.submit("jset", "jname=jail1")
	b.running(long)
	eventually(t, "all are accepted", func() bool { return s.open.Load() == 3 })
	if err := s.cancel(t.Context(), cbsdmq.Request{Job: waiting, By: "anna"}); err != nil {
		t.Fatal(err)
	}
	b.want(waiting, cbsdmq.Cancelled, cbsdmq.ExitCancelled)
	if err := s.cancel(t.Context(), cbsdmq.Request{Job: long, By: "anna"}); err != nil {
		t.Fatal(err)
	}
	b.want(long, cbsdmq.Cancelled, cbsdmq.ExitCancelled)
	b.want(behind, cbsdmq.Done, 0)
	if err := s.cancel(t.Context(), cbsdmq.Request{Job: long, By: "anna"}); err == nil {
		t.Error("a job that has ended was cancelled")
	}
	early := b.job("jset", "jname=jail1")
	if err := s.cancel(t.Context(), cbsdmq.Request{Job: early.Meta.ID, By: "anna"}); err != nil {
		t.Fatal(err)
	}
	b.put(early)
	b.want(early.Meta.ID, cbsdmq.Cancelled, cbsdmq.ExitCancelled)
	begun, _ := b.machine.snapshot()
	if len(begun) != 2 {
		t.Errorf("begun: %q", begun)
	}
}

// Who cancels what never comes cannot make the journal grow without end, and keeps
// nobody from cancelling what is there.
func TestTooManyCancelledThatNeverCome(t *testing.T) {
	b := newBench(t)
	s := b.start()
	var graves journal.Batch
	for range maxTombstones {
		graves.Tombstone = append(graves.Tombstone, newID())
	}
	if !s.post(t.Context(), func(l *loop) {
		if err := l.s.cfg.Journal.Commit(&graves); err != nil {
			t.Error(err)
		}
	}) {
		t.Fatal("the agent has ended")
	}
	err := s.cancel(t.Context(), cbsdmq.Request{Job: newID(), By: "anna"})
	if cbsdmq.CodeOf(err) != cbsdmq.CodeUnavailable || !strings.Contains(fmt.Sprint(err), "100000 others") || cbsdmq.HintOf(err) == "" {
		t.Errorf("one more: %v", err)
	}
	id := b.submit("jstart", "jname=jail1")
	b.running(id)
	if err := s.cancel(t.Context(), cbsdmq.Request{Job: id, By: "anna"}); err != nil {
		t.Fatal(err)
	}
	b.want(id, cbsdmq.Cancelled, cbsdmq.ExitCancelled)
}

// A script of cbsd traps SIGTERM: it loses the step that it is at, goes on and
// ends with status 0. That is not done.
func TestCancelGoesOn(t *testing.T) {
	b := newBench(t)
	b.machine.onTerm = "goes on"
	s := b.start()
	id := b.submit("jstart", "jname=jail1")
	b.running(id)
	if err := s.cancel(t.Context(), cbsdmq.Request{Job: id, By: "anna"}); err != nil {
		t.Fatal(err)
	}
	r := b.want(id, cbsdmq.Cancelled, cbsdmq.ExitCancelled)
	if !strings.Contains(r.Reason, "without the step") || r.Hint == "" {
		t.Errorf("reason %q, hint %q", r.Reason, r.Hint)
	}
	b.stop()
	b.adjust = func(c *Config) { c.TimeLimit = 10 * time.Millisecond }
	b.start()
	r = b.want(b.submit("jstart", "jname=jail1"), cbsdmq.Timeout, cbsdmq.ExitTimeout)
	if !strings.Contains(r.Reason, "without the step") || !strings.Contains(r.Hint, "time_limit") || !strings.Contains(r.Hint, "look at the guest") {
		t.Errorf("reason %q, hint %q", r.Reason, r.Hint)
	}
}

func TestCancelTooLate(t *testing.T) {
	b := newBench(t)
	b.machine.onTerm = "had ended"
	s := b.start()
	id := b.submit("jstart", "jname=jail1")
	b.running(id)
	if err := s.cancel(t.Context(), cbsdmq.Request{Job: id, By: "anna"}); err != nil {
		t.Fatal(err)
	}
	b.want(id, cbsdmq.Done, 0)
}

func TestTimeLimit(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.TimeLimit = 10 * time.Millisecond }
	b.start()
	b.want(b.submit("jstart", "jname=jail1"), cbsdmq.Timeout, cbsdmq.ExitTimeout)
}

// A command that has ended when it is to be ended keeps its end, also where the
// runner's word on the signal comes last.
func TestSignalTooLate(t *testing.T) {
	b := newBench(t)
	b.machine.tooLate = 3
	b.adjust = func(c *Config) { c.TimeLimit = 10 * time.Millisecond }
	b.start()
	b.want(b.submit("jstart", "jname=jail1"), cbsdmq.Failed, 3)
}

// An agent sends a signal because of the time limit, and is killed before it can
// say so: the next one does.
func TestTimeLimitOfAnAgentBefore(t *testing.T) {
	b := newBench(t)
	b.start()
	id := b.submit("jstart", "jname=jail1")
	b.running(id)
	b.stop()
	b.machine.mu.Lock()
	for _, r := range b.machine.runs {
		r.event.Signalled = true
		b.machine.exit(r, 0, syscall.SIGTERM, time.Now().Add(time.Minute))
	}
	b.machine.mu.Unlock()
	b.adjust = func(c *Config) { c.TimeLimit = 30 * time.Second }
	b.start()
	b.want(id, cbsdmq.Timeout, cbsdmq.ExitTimeout)
}

func TestForeignCommand(t *testing.T) {
	b := newBench(t)
	wait := time.Second
	b.adjust = func(c *Config) { c.ForeignWait = wait }
	b.cbsd.setForeign("jail1", true)
	b.start()
	r := b.want(b.submit("jset", "jname=jail1"), cbsdmq.Refused, cbsdmq.ExitRefused)
	if r.Reason != "busy: cbsd bstart jail1 (pid 4711, pts/1, root)" {
		t.Errorf("reason %q", r.Reason)
	}
	b.stop()
	wait = time.Hour
	b.start()
	id := b.submit("jset", "jname=jail1")
	b.want(b.submit("jset", "jname=jail2"), cbsdmq.Done, 0) // others go on
	b.cbsd.setForeign("jail1", false)
	b.want(id, cbsdmq.Done, 0)
}

func TestExpired(t *testing.T) {
	b := newBench(t)
	b.start()
	long := b.submit("jstart", "jname=jail1")
	b.running(long)
	j := b.job("jset", "jname=jail1")
	j.Meta.Expires = time.Now().Add(300 * time.Millisecond)
	id := b.put(j)
	if r := b.want(id, cbsdmq.Refused, cbsdmq.ExitRefused); r.Hint == "" {
		t.Errorf("no way out of %q", r.Reason)
	}
	b.finish(long, 0, "")
	b.want(long, cbsdmq.Done, 0)
	j = b.job("jset", "jname=jail1")
	j.Meta.Expires = time.Now().Add(-time.Second)
	if r := b.want(b.put(j), cbsdmq.Refused, cbsdmq.ExitRefused); r.Hint == "" {
		t.Errorf("no way out of %q", r.Reason)
	}
}

func TestPanicInOneJob(t *testing.T) {
	b := newBench(t)
	b.cbsd.panics = true
	b.start()
	b.want(b.submit("jset", "jname=jail1"), cbsdmq.Unknown, cbsdmq.ExitUnknown)
	if r := b.want(b.submit("panic"), cbsdmq.Refused, cbsdmq.ExitRefused); r.Hint == "" || !strings.Contains(r.Reason, "cannot read") {
		t.Errorf("got %+v", r)
	}
}

func TestStream(t *testing.T) {
	b := newBench(t)
	b.start()
	j := b.job("jstart", "jname=jail1")
	j.Meta.Stream = true
	id := b.put(j)
	b.running(id)
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	b.machine.mu.Lock()
	for _, r := range b.machine.runs {
		b.machine.write(r, text.String()[:100_000])
	}
	b.machine.mu.Unlock()
	b.finish(id, 0, text.String()[100_000:])
	r := b.want(id, cbsdmq.Done, 0)
	got := make([]byte, text.Len())
	var have int64
	for _, p := range append(b.pieces["pool1/"+id], r) {
		if p.Offset > have {
			t.Fatalf("a gap: have %d bytes, the next piece is at %d", have, p.Offset)
		}
		copy(got[p.Offset:], p.Output())
		have = max(have, p.Offset+int64(len(p.Output())))
	}
	if have != int64(text.Len()) || string(got) != text.String() {
		t.Errorf("the joined pieces have %d bytes, want %d", have, text.Len())
	}
}

func TestRefusedStartIsTriedAgain(t *testing.T) {
	b := newBench(t)
	b.start()
	b.machine.setRefuse(true)
	id := b.submit("jset", "jname=jail1")
	eventually(t, "the start was refused", func() bool { return b.machine.refusals() > 0 })
	b.machine.setRefuse(false)
	b.want(id, cbsdmq.Done, 0)
	b.begunOnce()
}

// A start that was refused has begun nothing: also the next agent knows that,
// when others have begun since.
func TestRefusedStartOverRestart(t *testing.T) {
	b := newBench(t)
	b.start()
	b.machine.setRefuse(true)
	id := b.submit("jset", "jname=jail1")
	eventually(t, "the start was refused, and that is in the journal", func() bool {
		row, err := b.row(id)
		return b.machine.refusals() > 0 && err == nil && row != nil && row.State == cbsdmq.Queued && row.Begun.IsZero()
	})
	b.machine.setRefuse(false)
	other := b.submit("jstart", "jname=jail2")
	b.running(other)
	b.stop()
	b.start()
	b.want(id, cbsdmq.Done, 0)
	b.finish(other, 0, "")
	b.want(other, cbsdmq.Done, 0)
	b.begunOnce()
}

func (b *bench) row(id string) (*journal.Job, error) {
	path := filepath.Join(b.dir, "pool", "journal.sqlite")
	db, err := journal.OpenReader(path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return journal.NewReader(db, path).Job(b.t.Context(), id)
}

func TestBrokerBeginsItsIDsAgain(t *testing.T) {
	b := newBench(t)
	b.start()
	// A legacy job runs; the broker loses its memory and gives its number to
	// somebody else's job.
	first := b.raw(`{"Command":"jstart","CommandArgs":{"jname":"jail1"}}`)
	b.running(fmt.Sprint(first))
	b.broker.Restart(false)
	var second uint64
	eventually(t, "the broker is back", func() bool {
		r := b.client.Put(t.Context(), bus.Message{Tube: bus.Tube{Name: "jobs"}, Body: []byte(`{"Command":"jprint","CommandArgs":{"mine":"yes"}}`)})
		second = r[0].ID
		return r[0].Err == nil
	})
	if first != second {
		t.Fatalf("the ids did not begin again: %d, then %d", first, second)
	}
	box, err := b.client.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{{Name: bus.MailboxName("reply", second), Kind: bus.Mailbox}}})
	if err != nil {
		t.Fatal(err)
	}
	ds, err := box.Receive(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if r, _ := cbsdmq.ParseReply(ds[0].Body); r.Message != "mine=yes" || r.ID != fmt.Sprintf("pool1/%d.2", second) {
		t.Errorf("the second job got %+v", r)
	}
	b.finish(fmt.Sprint(first), 0, "for somebody else\n")
	eventually(t, "the first job has ended", func() bool {
		row, err := b.row(fmt.Sprint(first))
		return err == nil && row != nil && row.State == cbsdmq.Done
	})
	b.want(b.submit("jset", "jname=jail1"), cbsdmq.Done, 0) // a round trip later
	info, err := b.client.Inspect(t.Context(), bus.Tube{Name: bus.MailboxName("reply", second), Kind: bus.Mailbox})
	if err != nil || info.Ready > 0 {
		t.Errorf("the stranger's mailbox has %d more replies, %v", info.Ready, err)
	}
}

func TestUnreadRepliesAreRemoved(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.ReplyTTL = time.Second }
	b.start()
	tube := bus.Tube{Name: bus.MailboxName("reply", b.mailbox+1), Kind: bus.Mailbox}
	reader, err := b.client.Consume(t.Context(), bus.ConsumeOptions{Tubes: []bus.Tube{tube}}) // what somebody consumes stays
	if err != nil {
		t.Fatal(err)
	}
	b.raw(fmt.Sprintf(`{"Command":"jprint","CommandArgs":{"a":"b"},"JobID":%d}`, b.mailbox+1))
	ready := func() int {
		info, err := b.client.Inspect(t.Context(), tube)
		if err != nil {
			t.Fatal(err)
		}
		return info.Ready
	}
	eventually(t, "the reply is there", func() bool { return ready() == 1 })
	before := b.broker.Tubes()
	reader.Close()
	eventually(t, "the unread reply is removed", func() bool { return ready() == 0 })
	if after := b.broker.Tubes(); after >= before {
		t.Errorf("%d tubes, with the reply %d", after, before)
	}
}

// TestPowerLoss: what the runner had on record may be lost with the machine's
// memory, so a change that was begun before is not begun again.
func TestPowerLoss(t *testing.T) {
	for _, what := range []string{"another boot", "the runner's directory was emptied"} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t)
			b.start()
			change := b.submit("jstart", "jname=jail1")
			b.running(change)
			behind := b.submit("jset", "jname=jail1")
			eventually(t, "both are in the journal", func() bool { row, _ := b.row(behind); return row != nil })
			b.stop()
			b.machine.forget()
			if what == "another boot" {
				b.machine.boot = "boot2"
			} else {
				marks, _ := filepath.Glob(filepath.Join(b.dir, "served-*"))
				for _, m := range marks {
					os.Remove(m)
				}
			}
			b.start()
			b.want(change, cbsdmq.Unknown, cbsdmq.ExitUnknown)
			b.want(behind, cbsdmq.Done, 0)
			b.begunOnce()
		})
	}
}

func TestNameOfAnotherPool(t *testing.T) {
	b := newBench(t)
	made := make(chan string, 10)
	b.adjust = func(c *Config) {
		c.Elsewhere = func(_ context.Context, guest string) string {
			if guest == "taken" {
				return "pool2"
			}
			return ""
		}
		c.Made = func(guest string) { made <- guest }
	}
	b.start()
	r := b.want(b.submit("jcreate", "jname=taken"), cbsdmq.Refused, cbsdmq.ExitRefused)
	if r.Reason != "CommandArgs.jname: pool2 of this host has, or is making, a guest taken" {
		t.Errorf("reason %q", r.Reason)
	}
	b.want(b.submit("jcreate", "jname=free"), cbsdmq.Done, 0)
	select {
	case guest := <-made:
		if guest != "free" {
			t.Errorf("made %s", guest)
		}
	case <-time.After(20 * time.Second):
		t.Error("nobody was told that it was made")
	}
	b.want(b.submit("jset", "jname=taken"), cbsdmq.Done, 0)
}

// slowAge is a broker that does not tell its incarnation, and whose answer to Age
// is late.
type slowAge struct{ Bus }

func (b slowAge) Inspect(ctx context.Context, t bus.Tube) (bus.Info, error) {
	info, err := b.Bus.Inspect(ctx, t)
	info.IDBase, info.Instance = 0, ""
	return info, err
}

type slowAgeConsumer struct{ bus.Consumer }

func (b slowAge) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	c, err := b.Bus.Consume(ctx, o)
	return slowAgeConsumer{c}, err
}

func (c slowAgeConsumer) Age(ctx context.Context, d bus.Delivery) (time.Duration, error) {
	age, err := c.Consumer.Age(ctx, d)
	time.Sleep(1500 * time.Millisecond) // the answer is on its way: that is what is tested
	return age, err
}

// A job of an original client that comes again is not a new one because the
// broker took its time to say how old it is.
func TestLegacyJobComesAgain(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.Endpoints[0].Bus = slowAge{c.Endpoints[0].Bus} }
	acked := make(chan struct{})
	var acks atomic.Int64
	b.broker.Hook(mem.Hooks{OnAck: func(d bus.Delivery) (bool, error) {
		if d.Tube != "jobs" {
			return true, nil
		}
		n := acks.Add(1)
		if n <= 2 {
			acked <- struct{}{}
		}
		return n > 1, nil // the first is lost
	}})
	b.start()
	b.raw(`{"Command":"jset","CommandArgs":{"jname":"jail1"},"JobID":4503599627370496}`)
	<-acked
	b.broker.Cut()
	<-acked
	later := b.job("jset", "jname=jail1")
	body, err := json.Marshal(later)
	if err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, 10*time.Second, func() error { // this client's connection was cut, too
		return b.client.Put(t.Context(), bus.Message{Tube: bus.Tube{Name: "jobs"}, Body: body})[0].Err
	})
	b.want(later.Meta.ID, cbsdmq.Done, 0)
	if begun, _ := b.machine.snapshot(); len(begun) != 2 {
		t.Errorf("begun: %q", begun)
	}
}

// numberless is a broker whose messages come from a client that gave them no
// number.
type numberless struct{ Bus }

type numberlessConsumer struct{ bus.Consumer }

func (b numberless) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	c, err := b.Bus.Consume(ctx, o)
	return numberlessConsumer{c}, err
}

func (c numberlessConsumer) Receive(ctx context.Context, most int) ([]bus.Delivery, error) {
	ds, err := c.Consumer.Receive(ctx, most)
	for i := range ds {
		ds[i].ID = 0
	}
	return ds, err
}

// Two jobs that nothing tells apart are not taken for one in silence.
func TestJobWithoutNumber(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.Endpoints[0].Bus = numberless{c.Endpoints[0].Bus} }
	b.start()
	b.raw(`{"Command":"jset","CommandArgs":{"jname":"jail1"},"JobID":4503599627370496}`)
	if r := b.want("0", cbsdmq.Refused, 2); !strings.Contains(r.Reason, "no number") || !strings.Contains(r.Hint, "docs/WIRE.md") {
		t.Errorf("got %+v", r)
	}
	b.want(b.submit("jset", "jname=jail1"), cbsdmq.Done, 0) // it has an id
	if begun, _ := b.machine.snapshot(); len(begun) != 1 {
		t.Errorf("begun: %q", begun)
	}
}

// watched is a broker that tells who consumes its tubes, and how.
type watched struct {
	Bus
	options chan<- bus.ConsumeOptions
}

func (b watched) Consume(ctx context.Context, o bus.ConsumeOptions) (bus.Consumer, error) {
	b.options <- o
	return b.Bus.Consume(ctx, o)
}

// Jobs are read by one who says that nobody else does: some brokers keep their
// order only then.
func TestReadsAlone(t *testing.T) {
	b := newBench(t)
	options := make(chan bus.ConsumeOptions, 10)
	b.adjust = func(c *Config) { c.Endpoints[0].Bus = watched{c.Endpoints[0].Bus, options} }
	b.start()
	for o := range options { // or the test does not end
		if o.Tubes[0].Name == "jobs" {
			if !o.Alone {
				t.Error("the reader of jobs does not say that it is alone")
			}
			return
		}
	}
}
