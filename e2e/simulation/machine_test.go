package simulation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/e2e/judge"
	"github.com/cbsd/cbsdmq/runner"
)

// A machine is the host that outlives agents: its commands, and the runner that
// started them. The runner keeps what package runner promises; its log is the
// field runs and mark, which the loss of a runner leaves as they are.
type machine struct {
	w   *world
	dir string

	mu      sync.Mutex
	boot    int
	runner  int // which one
	away    bool
	full    bool // of files: starts are refused for now
	mark    runner.Key
	refused map[runner.Key]bool // for now, and the agent has not said that it knows
	runs    map[runner.Key]*run
	slots   []bool // output files in use
	conn    *runnerConn
	trap    string        // where the runner is to be lost, "" = nowhere
	strike  bool          // the agent is to die when it has sent its next start
	frozen  chan struct{} // the runner stands still, until this is closed; nil = it does not
	since   time.Time     // when that began
	unseen  []func()      // what it will see then
	stuck   []*runnerConn // what it will read then
	pid     int
	acts    []*judge.Act // the ground truth
	procs   map[int]*process
}

// A run is a command as the runner knows it.
type run struct {
	event runner.Event
	slot  int
	proc  *process // nil until it is forked
}

// A process is a command that runs.
type process struct {
	run    *run
	act    *judge.Act
	out    []byte // all that it is going to print
	wrote  int
	status int
	obeys  string // what it does with SIGTERM
	timer  *time.Timer
	alive  bool
}

func newMachine(w *world, dir string) *machine {
	// No real process has such a pid, so that the agent's look at /proc finds none.
	return &machine{w: w, dir: dir, boot: 1, pid: 1 << 28, runs: make(map[runner.Key]*run), refused: make(map[runner.Key]bool), procs: make(map[int]*process)}
}

func (m *machine) bootID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("boot%d", m.boot)
}

func (m *machine) dial(ctx context.Context) (agent.Runner, error) {
	if err := m.greet(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		return nil, errors.New("the runner cannot be started")
	}
	return &runnerConn{m: m, name: fmt.Sprintf("runner%d", m.runner), more: make(chan struct{}, 1), dead: make(chan struct{})}, nil
}

// start takes one start of c's, as the runner does. It returns false where the
// runner was lost over it.
func (m *machine) start(c *runnerConn, s runner.Start) bool {
	refuse := func(temporary bool, reason string) {
		if temporary && c == m.conn {
			m.refused[s.Key] = true
		}
		c.push(runner.Event{Key: s.Key, Kind: runner.Refused, Job: s.Job, Temporary: temporary, Reason: reason})
	}
	switch {
	case c != m.conn:
		m.w.count("a start of before is read")
		refuse(true, "the pool was given to another connection")
		return true
	case !s.Key.After(m.mark):
		refuse(false, "not above the mark")
		return true
	case m.full:
		refuse(true, "no space left on device")
		return true
	case m.refusedBelow(s.Key):
		refuse(true, "one before it was refused")
		return true
	case m.trap == "before its log":
		m.lose()
		if m.away {
			m.swallowed(s.Job)
		}
		return false
	}
	m.mark = s.Key
	delete(m.refused, s.Key)
	r := &run{event: runner.Event{Key: s.Key, Job: s.Job, Kind: runner.Accepted}}
	r.slot = slices.Index(m.slots, false)
	if r.slot < 0 {
		r.slot = len(m.slots)
		m.slots = append(m.slots, false)
	}
	m.slots[r.slot] = true
	r.event.Out.Path = filepath.Join(m.dir, fmt.Sprintf("%d.out", r.slot))
	r.event.Err.Path = filepath.Join(m.dir, fmt.Sprintf("%d.err", r.slot))
	if err := os.RemoveAll(r.event.Out.Path); err != nil {
		panic(err)
	}
	m.runs[s.Key] = r
	if m.trap == "before the fork" {
		m.lose()
		return false
	}
	m.fork(r, s)
	if m.trap == "after the fork" {
		m.lose()
		return false
	}
	return true
}

// swallowed is called for a start that was lost on its way: perhaps nobody wants
// its job any more when there is a runner again.
func (m *machine) swallowed(job string) {
	if m.w.dice.chance("swallowed", 0.5) {
		select {
		case m.w.unwanted <- job:
		default:
		}
	}
}

func (m *machine) refusedBelow(k runner.Key) bool {
	for r := range m.refused {
		if k.After(r) {
			return true
		}
	}
	return false
}

// fork begins a command. What it does is in its arguments.
func (m *machine) fork(r *run, s runner.Start) {
	m.pid++
	if len(s.Args) == 0 {
		s.Args = []string{""} // bare cbsd
	}
	arg := make(map[string]string)
	for _, a := range s.Args[1:] {
		name, value, _ := strings.Cut(a, "=")
		arg[name] = value
	}
	number := func(name string) int { n, _ := strconv.Atoi(arg[name]); return n }
	p := &process{run: r, status: number("code"), obeys: arg["term"], alive: true}
	p.out = output(arg["tag"], number("out"))
	p.act = &judge.Act{
		Pool: pool, Job: s.Job, PID: m.pid, Command: s.Args[0], Args: s.Args[1:], Begin: m.w.now(),
		Status: p.status, Bytes: int64(len(p.out)), Sum: judge.OutputSum(p.out),
	}
	if g := arg["jname"]; g != "" {
		p.act.Guests = strings.Split(g, ",")
	}
	m.acts = append(m.acts, p.act)
	p.act.Lines = []string{fmt.Sprintf("truth: %s pid %d began at %s: %s", s.Job, m.pid, p.act.Begin.Format("15:04:05.000000"), strings.Join(s.Args, " "))}
	m.procs[m.pid] = p
	r.proc = p
	r.event.Kind, r.event.PID, r.event.At = runner.Started, m.pid, time.Now()
	m.w.trace(p.act.Lines...)
	length := time.Duration(number("work")) * time.Millisecond
	if length > 0 {
		m.tell(r.event) // else it is too short to be introduced
	}
	m.step(p, length, 3)
}

// step lets a command print its output in pieces and end.
func (m *machine) step(p *process, length time.Duration, left int) {
	if left == 0 || length == 0 {
		m.print(p, len(p.out))
		m.exit(p, p.status, 0)
		return
	}
	p.timer = time.AfterFunc(length/time.Duration(left), func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !p.alive {
			return
		}
		if left > 1 {
			m.print(p, p.wrote+(len(p.out)-p.wrote)/left)
		}
		m.step(p, length-length/time.Duration(left), left-1)
	})
}

// print writes the output up to the byte to.
func (m *machine) print(p *process, to int) {
	if to <= p.wrote {
		return
	}
	f, err := os.OpenFile(p.run.event.Out.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if _, err := f.Write(p.out[p.wrote:to]); err != nil {
		panic(err)
	}
	p.wrote = to
	p.run.event.Out.Size = int64(to)
}

// exit ends a command.
func (m *machine) exit(p *process, status int, sig syscall.Signal) {
	if !p.alive {
		return
	}
	p.alive = false
	if p.timer != nil {
		p.timer.Stop()
	}
	delete(m.procs, p.act.PID)
	p.act.End = m.w.now()
	p.act.Status = status
	if sig != 0 {
		p.act.Status = 128 + int(sig)
	}
	p.act.Bytes, p.act.Sum = int64(p.wrote), judge.OutputSum(p.out[:p.wrote])
	p.note()
	m.w.trace(p.act.Lines[1])
	r := p.run
	m.see(func() { m.ended(r, status, sig) })
}

// ended is how the runner sees the end of a command.
func (m *machine) ended(r *run, status int, sig syscall.Signal) {
	if m.runs[r.event.Key] != r {
		return // of a runner that has forgotten it
	}
	if r.event.Kind == runner.Orphan {
		// The next runner looks now and then.
		time.AfterFunc(m.w.dice.upTo("orphan", time.Second), func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.see(func() {
				if m.runs[r.event.Key] == r && r.event.Kind == runner.Orphan {
					r.event.Kind, r.event.Reason = runner.Lost, "the runner was killed while it ran"
					m.tell(r.event)
				}
			})
		})
		return
	}
	if m.trap == "before it notes an end" {
		m.lose()
		return
	}
	r.event.Kind, r.event.Status, r.event.Signal, r.event.At = runner.Exited, status, sig, time.Now()
	if m.trap == "before it tells an end" {
		m.lose()
		return
	}
	m.tell(r.event)
}

// note writes the end of a command down as evidence.
func (p *process) note() {
	p.act.Lines = append(p.act.Lines, fmt.Sprintf("truth: %s pid %d ended at %s with status %d, %d bytes",
		p.act.Job, p.act.PID, p.act.End.Format("15:04:05.000000"), p.act.Status, p.act.Bytes))
}

func (m *machine) tell(e runner.Event) {
	if m.conn != nil {
		m.conn.push(e)
	}
}

// lose kills the runner. Its commands go on; the next runner finds them in the
// log, and can wait for none of them.
func (m *machine) lose() { m.loseFrom(time.Time{}, false) }

// loseFrom is lose where the runner has not worked from then on.
func (m *machine) loseFrom(from time.Time, powerless bool) {
	m.trap = ""
	m.runner++
	if m.frozen != nil {
		if from.IsZero() || m.since.Before(from) {
			from = m.since
		}
	}
	m.forgetStalled()
	lost := judge.Event{Kind: judge.RunnerLost, Pool: pool, From: from}
	if !powerless {
		lost.Jobs = []string{}
		for _, k := range m.keys() {
			if e := m.runs[k].event; !e.Kind.Ended() {
				lost.Jobs = append(lost.Jobs, e.Job)
			}
		}
	}
	m.w.event(lost)
	for _, r := range m.runs {
		switch {
		case r.event.Kind == runner.Accepted:
			r.event.Kind, r.event.Reason = runner.Lost, "the runner was killed before it was started"
		case r.event.Kind == runner.Started && r.proc.alive:
			r.event.Kind = runner.Orphan
		case r.event.Kind == runner.Started || r.event.Kind == runner.Orphan && !r.proc.alive:
			r.event.Kind, r.event.Reason = runner.Lost, "the runner was killed when it ended"
		}
	}
	if m.conn != nil {
		m.conn.fail()
		m.conn = nil
	}
}

// powerOff ends everything that runs. The runner does not sync its log: some of
// the end of it may be lost.
func (m *machine) powerOff() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boot++
	from := time.Now() // the end of a command since then may be known to the runner alone
	for _, r := range m.runs {
		if r.proc != nil && !r.proc.alive && r.proc.act.End.Before(from) {
			from = r.proc.act.End
		}
	}
	for _, pid := range sorted(m.procs) {
		p := m.procs[pid]
		m.w.event(judge.Event{Kind: judge.CommandKilled, Pool: pool, PID: pid})
		p.alive = false
		if p.timer != nil {
			p.timer.Stop()
		}
		p.act.End, p.act.Status = m.w.now(), 128+int(syscall.SIGKILL)
		p.act.Bytes, p.act.Sum = 0, "" // nobody can know
		p.note()
	}
	m.procs = make(map[int]*process)
	switch m.w.dice.n("power", 3) {
	case 0: // nothing is left
		m.runs, m.mark, m.slots = make(map[runner.Key]*run), runner.Key{}, nil
		if err := os.RemoveAll(m.dir); err != nil {
			panic(err)
		}
		if err := os.MkdirAll(m.dir, 0o700); err != nil {
			panic(err)
		}
	case 1: // the end is lost
		keys := m.keys()
		keep := 0
		if len(keys) > 0 {
			keep = m.w.dice.n("power", len(keys)+1)
		}
		for _, k := range keys[keep:] {
			m.slots[m.runs[k].slot] = false
			delete(m.runs, k)
			if !k.After(m.mark) {
				m.mark = runner.Key{Pool: k.Pool, Epoch: k.Epoch, N: k.N - 1}
			}
		}
	}
	m.loseFrom(from, true)
}

// foreign is a command on one of the guests whose pid is not among the agent's
// own.
func (m *machine) foreign(guests []string, own func(pid int) bool) (cbsd.Busy, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, pid := range sorted(m.procs) {
		p := m.procs[pid]
		for _, g := range p.act.Guests {
			if !own(pid) && p.act.Command != "read" && (slices.Contains(guests, g) || slices.Contains(guests, cbsd.WholePool)) {
				return cbsd.Busy{PID: pid, User: "root", Command: "cbsd " + p.act.Command, Guest: g}, true
			}
		}
	}
	return cbsd.Busy{}, false
}

func (m *machine) keys() []runner.Key {
	var keys []runner.Key
	for k := range m.runs {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b runner.Key) int {
		if a.After(b) {
			return 1
		}
		return -1
	})
	return keys
}

// do runs f with the machine held.
func (m *machine) do(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// output is what the command of a job prints: n bytes that no other prints.
func output(tag string, n int) []byte {
	b := make([]byte, 0, n+32)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%s line %d\n", tag, i)
	}
	return b[:n]
}
