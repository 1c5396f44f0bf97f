package simulation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/mem"
	"github.com/cbsd/cbsdmq/e2e/judge"
	"github.com/cbsd/cbsdmq/journal"
)

const (
	pool   = "pool1"
	tube   = "cbsd_pool1"
	prefix = "cbsd_pool1_result_id"
)

// A world is everything of one schedule.
type world struct {
	t        *testing.T
	dice     *dice
	plan     schedule
	dir      string
	broker   *mem.Broker
	machine  *machine
	cbsd     *plans
	disk     disk
	agent    atomic.Pointer[life] // the one that serves, or did last
	stop     chan struct{}        // ends the agent that serves in order
	files    chan struct{}        // held while the journal's files change hands
	unwanted chan string          // jobs whose start was lost
	settled  chan struct{}        // held by who waits for all others
	held     bool                 // an agent has the journal; under files
	healed   atomic.Bool
	stopped  atomic.Bool // the broker
	copies   atomic.Int64
	crashes  []crash                // of each agent
	copied   time.Time              // when the journal was copied
	rolled   atomic.Pointer[string] // the copy that takes the journal's place after the next death
	clock    atomic.Int64           // how far the host's clock is set forward after the next death

	mu      sync.Mutex
	latest  time.Time
	history judge.History
	jobs    map[string]*judge.Job // by ID
	order   []*judge.Job
	tally   map[string]int // how often each thing went wrong
	lines   []string
	same    *strings.Replacer // leaves out what is another each time
	verbose bool
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// now is the time, later each time that it is asked.
func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nowLocked()
}

func (w *world) nowLocked() time.Time {
	now := time.Now()
	if !now.After(w.latest) {
		now = w.latest.Add(time.Nanosecond)
	}
	w.latest = now
	return now
}

func (w *world) event(e judge.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e.At = w.nowLocked()
	w.history.Events = append(w.history.Events, e)
	w.tally[e.Kind]++
	w.traceLocked("event", e.Kind, fmt.Sprint("pid ", e.PID))
}

func (w *world) trace(words ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.traceLocked(words...)
}

func (w *world) traceLocked(words ...string) {
	if w.verbose {
		line := time.Now().Format("15:04:05.000000 ") + w.same.Replace(strings.Join(words, ": "))
		w.lines = append(w.lines, line)
		if *liveFlag {
			fmt.Fprintln(os.Stderr, line)
		}
	}
}

// Write makes a world the writer of its programs' log.
func (w *world) Write(p []byte) (int, error) {
	w.trace(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (w *world) log(who string) *slog.Logger {
	if !w.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})).With("who", who)
}

// slow is how long a call takes.
func (w *world) slow(where string) time.Duration {
	switch {
	case w.healed.Load():
		return 0
	case where == "before" && w.plan.looks > 0:
		return w.dice.upTo("looks", w.plan.looks)
	case w.plan.slowest == 0 || !w.dice.chance("slow", 0.3):
		return 0
	}
	w.count("slow call")
	return w.dice.upTo("slow", w.plan.slowest)
}

func (w *world) journalPath() string { return filepath.Join(w.dir, "pool", "journal.sqlite") }

// settle waits until nobody has anything to do before some time passes.
func (w *world) settle() {
	w.settled <- struct{}{}
	synctest.Wait()
	<-w.settled
}

// wrote decides about a write of the journal that serves.
func (w *world) wrote() syscall.Errno {
	if l := w.agent.Load(); l != nil && !l.isDead() {
		_ = l.count("journal write")
	}
	errno := w.disk.write()
	switch errno {
	case syscall.ENOSPC:
		w.count("full disk written to")
	case syscall.EROFS:
		w.count("read-only disk written to")
	}
	return errno
}

// keepAgent has an agent serve the pool until ctx ends.
func (w *world) keepAgent(ctx context.Context) {
	for n := 1; ctx.Err() == nil; n++ {
		w.serve(ctx, fmt.Sprintf("agent %d", n))
		down := 100 * time.Millisecond
		if !w.healed.Load() {
			down = w.dice.upTo("down", 3*time.Second)
		}
		pause(ctx, down)
	}
}

// count notes that something went wrong as it was to.
func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tally[what]++
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve is the life of one agent.
func (w *world) serve(ctx context.Context, name string) {
	l := w.newLife(name)
	crash := filepath.Join(w.dir, fmt.Sprintf("crash%d", w.copies.Add(1)))
	l.last = func() {
		// What the host knows of the pool is copied before the pool itself, so
		// that it never knows more than there is.
		for _, part := range []string{"state", "pool"} {
			if err := copyTree(filepath.Join(w.dir, part), filepath.Join(crash, part)); err != nil {
				w.t.Error(err)
			}
		}
	}
	w.files <- struct{}{}
	alone := !w.held // else it is a rival, and finds the journal locked
	if alone {
		if !w.healed.Load() && len(w.crashes) > 0 {
			l.dieAt(w.crashes[0])
			w.crashes = w.crashes[1:]
		}
		l.agent = true
		w.agent.Store(l)
	}
	boot := w.machine.bootID()
	j, err := journal.Open(ctx, journal.Options{
		Path: w.journalPath(), State: filepath.Join(w.dir, "state"), Host: "host1", Boot: boot, Reserve: 4096,
	})
	if alone {
		w.held = err == nil
	}
	<-w.files
	if err == nil {
		w.live(ctx, l, j, boot)
	} else {
		w.trace("open", name, err.Error())
		w.count("the journal is another's")
	}
	w.files <- struct{}{}
	defer func() { <-w.files }()
	if j != nil {
		w.settle()
		if err := j.Close(); err != nil {
			w.trace("close", name, err.Error())
		}
	}
	if !alone {
		return
	}
	w.held = false
	if !l.isDead() {
		l.last = func() {}
		l.die("has ended")
		return
	}
	for _, part := range []string{"state", "pool"} {
		if err := putBack(filepath.Join(crash, part), filepath.Join(w.dir, part)); err != nil {
			w.t.Error(err)
		}
	}
	if old := w.rolled.Swap(nil); old != nil {
		parts := []string{"pool"}
		if w.dice.chance("roll back", 0.5) {
			parts = append(parts, "state") // then the runner alone knows
		}
		for _, part := range parts {
			if err := putBack(filepath.Join(*old, part), filepath.Join(w.dir, part)); err != nil {
				w.t.Error(err)
			}
		}
		w.event(judge.Event{Kind: judge.Rollback, Pool: pool, From: w.copied})
	}
	if d := time.Duration(w.clock.Swap(0)); d != 0 {
		w.setClock(d)
	}
}

// live serves until the process is killed, is told to end or gives up.
func (w *world) live(ctx context.Context, l *life, j *journal.Journal, boot string) {
	link := bus.New(w.broker.Driver(), bus.Options{Log: w.log(l.name)})
	p := w.plan
	s := agent.New(agent.Config{
		Pool: pool, Host: "host1", Boot: boot, Command: "/cbsd-of-the-simulation", Journal: j,
		CBSD: &mortalCBSD{plans: w.cbsd, l: l}, Dial: l.dial, RunDir: w.machine.dir,
		Endpoints: []agent.Endpoint{{Name: "mem", Bus: &mortalBus{l: l, Bus: link}, Tube: tube, Prefix: prefix, Timeout: 5 * time.Second}},
		Workers:   p.workers, Readers: p.readers, Backlog: p.backlog, TimeLimit: p.timeLimit, KillGrace: 5 * time.Second,
		ForeignWait: 10 * time.Second, ReplyTTL: 48 * time.Hour,
		Limits: journal.Limits{Results: 24 * time.Hour, IDs: 7 * 24 * time.Hour},
		Log:    w.log(l.name),
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	var err error
	select {
	case <-l.dead:
		link.Close() // as the kernel does
		cancel()
		err = <-done
	case <-w.stop:
		cancel()
		err = <-done
	case <-ctx.Done():
		err = <-done
	case err = <-done:
	}
	link.Close()
	w.trace("served", l.name, fmt.Sprint(err))
}

// printed is the id that people know a job by.
func printed(id string) string { return cbsdmq.PrintedID(pool, id) }

// addJob makes a job known to the judge.
func (w *world) addJob(j *judge.Job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.jobs[j.ID] = j
	w.order = append(w.order, j)
}

// change changes what is known of jobs.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// seen notes a message that arrived in somebody's mailbox.
func (w *world) seen(d bus.Delivery, by string) {
	number, ok := strings.CutPrefix(d.Tube, prefix)
	if !ok || strings.HasPrefix(number, "c") {
		return
	}
	r, err := cbsdmq.ParseReply(d.Body)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.history.Canaries = append(w.history.Canaries, "not a reply: "+string(d.Body))
		return
	}
	rec := judge.FromReply(r, w.nowLocked())
	rec.Address, rec.For = d.Tube, by
	w.history.Replies = append(w.history.Replies, rec)
	w.traceLocked("reply", d.Tube, rec.String())
}

// told notes what a follower was told.
func (w *world) told(follower string, r cbsdmq.Reply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	rec := judge.FromReply(r, w.nowLocked())
	rec.Follower = follower
	w.history.Replies = append(w.history.Replies, rec)
	w.traceLocked("told", follower, rec.String())
}

// makeDir makes a directory for a schedule, in memory where that can be.
func makeDir(t *testing.T) string {
	base := ""
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		base = "/dev/shm"
	}
	if base == "" {
		base = os.TempDir()
	}
	// As long each time: the length of a text decides where it lies in memory, and
	// that the order of some maps.
	dir := filepath.Join(base, fmt.Sprintf("cbsdmq-simulation-%010d-%08d", os.Getpid(), played))
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newWorld(t *testing.T, dir string, seed uint64, verbose bool) *world {
	w := &world{
		t: t, dice: newDice(seed), dir: dir, cbsd: &plans{}, verbose: verbose, jobs: make(map[string]*judge.Job), tally: make(map[string]int),
		stop: make(chan struct{}), files: make(chan struct{}, 1), settled: make(chan struct{}, 1), unwanted: make(chan string, 16),
	}
	w.same = strings.NewReplacer(dir, "DIR", fmt.Sprint("pid ", os.Getpid()), "pid N")
	w.plan = newSchedule(w.dice)
	w.crashes = slices.Clone(w.plan.crashes)
	w.broker = mem.New(mem.Options{NoTTL: true, MaxBody: cbsdmq.JobMax, Volatile: w.plan.volatile})
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	w.machine = newMachine(w, run)
	w.cbsd.machine = w.machine
	w.disk.reserve = w.journalPath() + ".reserve"
	return w
}
