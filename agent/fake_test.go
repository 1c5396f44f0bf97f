package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/runner"
)

// fakeMachine is a host that outlives the agents of a test: the runner and the
// commands that it runs. A command is a function; it ends when the test says.
type fakeMachine struct {
	dir     string
	mu      sync.Mutex
	mark    runner.Key
	runs    map[runner.Key]*fakeRun
	conn    *fakeRunner // the connection that gets events
	boot    string
	id      int
	begun   []string // jobs in order of their begin, as "id command guest"
	overlap []string // guests that had two changes at once
	busy    map[string]int
	refuse  bool                // starts, for want of disk space
	refused int                 // starts
	unknown map[runner.Key]bool // refused starts of which the agent has not said that it knows
	away    bool                // there is no runner, and none can be started
	lost    bool                // starts are lost on their way

	onTerm    string // what a command does at SIGTERM: "" ends by it, "goes on" to a good end, "had ended" before
	lateKills int    // signals to commands that had ended
	tooLate   int    // status with which a command has ended when it is to be killed; 0 = it has not
}

type fakeRun struct {
	start runner.Start
	event runner.Event
	gate  chan runner.Event // how it ends
}

func newMachine(dir string) *fakeMachine {
	return &fakeMachine{dir: dir, runs: make(map[runner.Key]*fakeRun), unknown: make(map[runner.Key]bool), busy: make(map[string]int), boot: "boot1"}
}

func (m *fakeMachine) dial(context.Context) (Runner, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return nil, errFakeGone
	}
	m.id++
	return &fakeRunner{m: m, more: make(chan struct{}, 1), dead: make(chan struct{}), name: fmt.Sprintf("runner%d", m.id)}, nil
}

// guestOf is the guest of a start of this test's plans.
func guestOf(s runner.Start) string {
	for _, a := range s.Args {
		if g, ok := strings.CutPrefix(a, "jname="); ok {
			return g
		}
	}
	return ""
}

// begin runs a command: `sleep` waits for the test, `print TEXT` writes, `exit
// N` fails, others end well at once.
func (m *fakeMachine) begin(s runner.Start) {
	r := &fakeRun{start: s, gate: make(chan runner.Event, 1)}
	base := filepath.Join(m.dir, fmt.Sprintf("%d", s.N))
	r.event = runner.Event{
		Key: s.Key, Job: s.Job, Kind: runner.Started, PID: 100000 + int(s.N), At: time.Now(),
		Out: runner.File{Path: base + ".out"}, Err: runner.File{Path: base + ".err"},
	}
	m.runs[s.Key] = r
	m.begun = append(m.begun, strings.TrimSpace(s.Job+" "+strings.Join(s.Args, " ")))
	guest := guestOf(s)
	if m.busy[guest]++; m.busy[guest] > 1 && guest != "" && s.Args[0] != "jget" {
		m.overlap = append(m.overlap, guest)
	}
	m.tell(r.event)
	switch s.Args[0] {
	case "jstart": // until told
	case "jprint":
		m.write(r, strings.Join(s.Args[1:], " "))
		m.exit(r, 0, 0, time.Now())
	case "jfail":
		m.write(r, "no luck\n")
		m.exit(r, 1, 0, time.Now())
	default:
		m.exit(r, 0, 0, time.Now())
	}
}

func (m *fakeMachine) write(r *fakeRun, text string) {
	f, err := os.OpenFile(r.event.Out.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		panic(err)
	}
	r.event.Out.Size += int64(len(text))
}

func (m *fakeMachine) exit(r *fakeRun, status int, sig syscall.Signal, at time.Time) {
	if r.event.Kind != runner.Started {
		return
	}
	m.busy[guestOf(r.start)]--
	r.event.Kind, r.event.Status, r.event.Signal, r.event.At = runner.Exited, status, sig, at
	m.tell(r.event)
}

func (m *fakeMachine) tell(e runner.Event) {
	if m.conn != nil {
		m.conn.push(e)
	}
}

// finish ends the command of a job that waits, as soon as it runs.
func (m *fakeMachine) finish(job string, status int, output string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.runs {
		if r.start.Job == job && r.event.Kind == runner.Started {
			m.write(r, output)
			m.exit(r, status, 0, time.Now())
			return true
		}
	}
	return false
}

// kill ends the command of a job as somebody else's SIGKILL does.
func (m *fakeMachine) kill(job string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.runs {
		if r.start.Job == job {
			m.exit(r, 0, syscall.SIGKILL, time.Now())
		}
	}
}

// lose kills the runner: it forgets who can wait for what, not the mark.
func (m *fakeMachine) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.runs {
		if r.event.Kind == runner.Started {
			m.busy[guestOf(r.start)]--
			r.event.Kind, r.event.PID, r.event.Reason = runner.Lost, 0, "the runner was killed"
		}
	}
	clear(m.unknown)
	if m.conn != nil {
		m.conn.fail()
		m.conn = nil
	}
}

// mute keeps the agent from hearing of anything; unmute breaks its connection, so
// that it asks.
func (m *fakeMachine) mute() (unmute func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.conn
	m.conn = nil
	return c.fail
}

// setAway has no runner for a while.
func (m *fakeMachine) setAway(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

// setLost loses starts on their way.
func (m *fakeMachine) setLost(lost bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lost = lost
}

// setRefuse has the runner refuse starts for want of room.
func (m *fakeMachine) setRefuse(refuse bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = refuse
}

// refusals is how many starts were refused for want of room.
func (m *fakeMachine) refusals() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refused
}

// late is how many signals came to commands that had ended.
func (m *fakeMachine) late() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lateKills
}

// above reports whether a start below this one was refused that the agent does not
// know of yet: then the runner takes none.
func (m *fakeMachine) above(k runner.Key) bool {
	for refused := range m.unknown {
		if k.After(refused) {
			return true
		}
	}
	return false
}

// forget loses the runner with all that it knew, as a power loss can.
func (m *fakeMachine) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.runs {
		m.busy[guestOf(r.start)] = 0
	}
	clear(m.unknown)
	m.runs, m.mark, m.conn = make(map[runner.Key]*fakeRun), runner.Key{}, nil
}

func (m *fakeMachine) snapshot() (begun, overlap []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.begun...), append([]string(nil), m.overlap...)
}

type fakeRunner struct {
	m    *fakeMachine
	name string
	mu   sync.Mutex
	q    []runner.Event
	more chan struct{}
	once sync.Once
	dead chan struct{}
}

var errFakeGone = errors.New("the runner is gone")

func (r *fakeRunner) fail() { r.once.Do(func() { close(r.dead) }) }

func (r *fakeRunner) push(e runner.Event) {
	r.mu.Lock()
	r.q = append(r.q, e)
	r.mu.Unlock()
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *fakeRunner) alive() error {
	select {
	case <-r.dead:
		return errFakeGone
	default:
		return nil
	}
}

func (r *fakeRunner) Start(starts ...runner.Start) error {
	if err := r.alive(); err != nil {
		return err
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	for _, s := range starts {
		switch {
		case r.m.lost:
		case r.m.refuse || r.m.above(s.Key):
			r.m.refused++
			r.m.unknown[s.Key] = true
			r.m.tell(runner.Event{Key: s.Key, Kind: runner.Refused, Temporary: true, Reason: "no space left"})
		case !s.Key.After(r.m.mark):
			r.m.tell(runner.Event{Key: s.Key, Kind: runner.Refused, Reason: "not above the mark"})
		default:
			r.m.mark = s.Key
			delete(r.m.unknown, s.Key)
			r.m.begin(s)
		}
	}
	return nil
}

func (r *fakeRunner) Ack(keys ...runner.Key) error {
	if err := r.alive(); err != nil {
		return err
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	for _, k := range keys {
		delete(r.m.unknown, k)
		if run := r.m.runs[k]; run != nil && run.event.Kind.Ended() {
			delete(r.m.runs, k)
			os.Remove(run.event.Out.Path)
		}
	}
	return nil
}

func (r *fakeRunner) List(ctx context.Context, pool string) (runner.Snapshot, error) {
	if err := r.alive(); err != nil {
		return runner.Snapshot{}, err
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	r.m.conn = r
	snap := runner.Snapshot{RunnerID: r.name, BootID: r.m.boot, Mark: r.m.mark}
	for _, run := range r.m.runs {
		snap.Runs = append(snap.Runs, run.event)
	}
	sort.Slice(snap.Runs, func(i, j int) bool { return snap.Runs[j].Key.After(snap.Runs[i].Key) })
	return snap, nil
}

func (r *fakeRunner) Kill(ctx context.Context, key runner.Key, sig syscall.Signal) error {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	run := r.m.runs[key]
	if run == nil || run.event.Kind != runner.Started {
		r.m.lateKills++
		return errors.New("nothing of it is left")
	}
	if status := r.m.tooLate; status != 0 {
		r.m.exit(run, status, 0, time.Now())
		r.m.mu.Unlock()
		defer r.m.mu.Lock()
		time.Sleep(50 * time.Millisecond) // the answer comes behind the event
		return errors.New("nothing of it is left")
	}
	run.event.Signalled = true
	switch r.m.onTerm {
	case "goes on":
		r.m.exit(run, 0, 0, time.Now())
	case "had ended":
		r.m.exit(run, 0, 0, time.Now().Add(-time.Minute))
	default:
		r.m.exit(run, 0, sig, time.Now())
	}
	return nil
}

func (r *fakeRunner) Output(ctx context.Context, key runner.Key) (stdout, stderr runner.File, err error) {
	return runner.File{}, runner.File{}, nil
}

func (r *fakeRunner) Next(ctx context.Context) ([]runner.Event, error) {
	for {
		r.mu.Lock()
		q := r.q
		r.q = nil
		r.mu.Unlock()
		if len(q) > 0 {
			return q, nil
		}
		select {
		case <-r.more:
		case <-r.dead:
			return nil, errFakeGone
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *fakeRunner) Close() error {
	r.fail()
	return nil
}

// fakeCBSD plans every command that it is given; jget and jls read.
type fakeCBSD struct {
	bytes     atomic.Int64                  // for Measure
	hangs     atomic.Pointer[chan struct{}] // Measure waits until it is closed, as on a disk that hangs
	measuring atomic.Int64                  // of Measure that go on
	blinded   atomic.Bool                   // Measure panics
	mu        sync.Mutex
	foreign   map[string]bool // guests that somebody else works on
	panics    bool
	stuck     chan struct{} // closed when guests can be read again
	gate      chan struct{} // nil: guests are looked at in no time
	looks     chan struct{} // an element for each that is looked at
}

// block makes Before wait until open is called.
func (c *fakeCBSD) block() (open func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate, c.looks = make(chan struct{}), make(chan struct{}, 100)
	return sync.OnceFunc(func() { close(c.gate) })
}

// looking waits until a guest is looked at.
func (c *fakeCBSD) looking(t *testing.T) {
	t.Helper()
	select {
	case <-c.looks:
	case <-time.After(20 * time.Second):
		t.Fatal("no guest is looked at")
	}
}

func (c *fakeCBSD) Plan(job cbsdmq.Job) (cbsd.Plan, error) {
	if job.Command == "panic" {
		panic("a bug in the policy")
	}
	if job.Command == "nosuch" {
		return cbsd.Plan{}, cbsdmq.Errorf(cbsdmq.CodeRefused, "Command", "unknown").WithHint("try jls")
	}
	p := cbsd.Plan{Command: job.Command, Argv: []string{job.Command}, Class: cbsd.Change, Family: "jail"}
	for _, a := range job.Args {
		p.Argv = append(p.Argv, a.Name+"="+a.Value)
	}
	p.Argv = append(p.Argv, job.Words()...)
	p.Guest, _ = job.Arg("jname")
	if job.Command == "jcreate" {
		p.Verb = cbsd.Create
	}
	switch {
	case job.Command == "jget" || job.Command == "jls" || job.Command == "jprint":
		p.Class = cbsd.Read
		if p.Guest != "" {
			p.Lanes = []string{p.Guest}
		}
	case p.Guest == "*":
		p.Lanes = []string{cbsd.WholePool}
	case p.Guest == "":
		p.Lanes = []string{"!" + job.Command}
	default:
		p.Lanes = strings.Split(p.Guest, ",")
	}
	return p, nil
}

func (c *fakeCBSD) Env(string, cbsd.Plan) []string { return nil }
func (c *fakeCBSD) Dir() string                    { return "/" }

func (c *fakeCBSD) Guests(ctx context.Context) ([]cbsdmq.Guest, error) {
	c.mu.Lock()
	stuck := c.stuck
	c.mu.Unlock()
	if stuck != nil {
		<-stuck // as a disk that does not answer, whatever becomes of ctx
	}
	return []cbsdmq.Guest{{Name: "jail1", Emulator: "jail", Status: "On"}}, nil
}

func (c *fakeCBSD) Guest(ctx context.Context, name string) (cbsdmq.Guest, bool, error) {
	all, err := c.Guests(ctx)
	i := slices.IndexFunc(all, func(g cbsdmq.Guest) bool { return g.Name == name })
	if err != nil || i < 0 {
		return cbsdmq.Guest{}, false, err
	}
	return all[i], true, nil
}

func (c *fakeCBSD) Before(ctx context.Context, _ cbsd.Plan) (cbsd.Snapshot, error) {
	c.mu.Lock()
	gate, looks := c.gate, c.looks
	c.mu.Unlock()
	if gate == nil {
		return cbsd.Snapshot{}, nil
	}
	looks <- struct{}{}
	select {
	case <-gate:
	case <-ctx.Done():
	}
	return cbsd.Snapshot{}, nil
}

func (c *fakeCBSD) After(ctx context.Context, p cbsd.Plan, b cbsd.Snapshot, exit cbsd.Exit, tail []byte) cbsd.Verdict {
	if c.panics {
		panic("a bug in the verdict")
	}
	v := cbsd.Verdict{ErrCode: exit.Code}
	if p.Class == cbsd.Change {
		v.Outcome = cbsdmq.Changed
		if exit.Code != 0 {
			v.Outcome, v.Reason = cbsdmq.OutcomeFailed, strings.TrimSpace(string(tail))
		}
	}
	return v
}

func (c *fakeCBSD) Lookups(context.Context, cbsd.Plan, cbsdmq.Job, cbsd.Snapshot) (guid, dskGuid, vnc string) {
	return "0", "0", ""
}

func (c *fakeCBSD) Images(context.Context) (cbsdmq.Store, []cbsdmq.Image, error) {
	return cbsdmq.Store{}, []cbsdmq.Image{{Profile: "cloud-x", Used: true}}, nil
}

func (c *fakeCBSD) Measure(context.Context, cbsd.Plan, []byte, []byte) cbsd.Moved {
	c.measuring.Add(1)
	defer c.measuring.Add(-1)
	if c.blinded.Load() {
		panic("cannot be measured")
	}
	if hangs := c.hangs.Load(); hangs != nil {
		<-*hangs
	}
	return cbsd.Moved{Percent: -1, Bytes: c.bytes.Load(), Of: 1000, What: "growing"}
}

func (c *fakeCBSD) Unknown(context.Context, cbsd.Plan) string { return "The guest is off." }

func (c *fakeCBSD) Foreign(ctx context.Context, guests []string, own func(int) bool) (cbsd.Busy, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range guests {
		if c.foreign[g] {
			return cbsd.Busy{PID: 4711, TTY: "pts/1", User: "root", Command: "cbsd bstart " + g, Guest: g}, true
		}
	}
	return cbsd.Busy{}, false
}

func (c *fakeCBSD) setForeign(guest string, busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.foreign == nil {
		c.foreign = make(map[string]bool)
	}
	c.foreign[guest] = busy
}

// eventually waits for cond with a deadline that only a hung test meets.
func eventually(t interface {
	Helper()
	Fatalf(string, ...any)
}, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}
