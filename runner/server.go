package runner

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq/internal/failpoint"
)

// maxRuns bounds the runs that a runner keeps: those that run, and those that no
// agent has acknowledged.
const maxRuns = 8192

// A run is one accepted Start.
type run struct {
	// Of the server, under its mutex.
	ev    Event // the last known
	slot  int
	max   int64          // bytes to keep of each file
	start *Start         // until it is forked
	kill  syscall.Signal // to be sent as soon as it is started

	// files guards the descriptors, and that only one goroutine trims. It is
	// taken before the server's mutex.
	files    sync.Mutex
	out, err int // -1: closed, or not ours
}

// A pool is what the runner knows of the runs with one pool uuid.
type pool struct {
	mark  Key
	runs  map[Key]*run
	owner *conn // gets the events, nil where no agent is connected

	// refused are starts that were refused for now, until the agent acknowledges
	// that it knows, or asks what is known. Nothing above them is taken meanwhile:
	// below the mark there is no start that was not.
	refused map[Key]struct{}
}

// refuse refuses a start for now.
func (p *pool) refuse(c *conn, st *Start, reason string) {
	p.refused[Key{Pool: p.mark.Pool, Epoch: st.Epoch, N: st.N}] = struct{}{}
	ev := refusal(st, true, reason)
	c.sendEvent(&ev)
}

// A server is the state of a runner. Every change is in the log before anybody
// is told.
type server struct {
	log    *slog.Logger
	boot   string
	id     string
	hello  string // first line to every agent
	null   int    // descriptor of /dev/null
	queue  chan *run
	closed chan struct{}

	mu       sync.Mutex
	forked   *sync.Cond // a fork came to its end
	forking  int        // forks under way
	children map[int]*run
	young    []*run        // those of children that have not been introduced, in their order
	born     chan struct{} // holds an element while young may hold some
	orphans  map[*run]bool
	pools    map[string]*pool
	count    int // runs of all pools
	events   *eventLog
	failing  bool    // the log cannot be written
	evicted  bool    // no agent can find this runner
	lines    []byte  // scratch of record
	told     []*conn // those to which record has something to send
	slots    *slots
}

func (s *server) pool(uuid string) *pool {
	p := s.pools[uuid]
	if p == nil {
		uuid = strings.Clone(uuid)
		p = &pool{mark: Key{Pool: uuid}, runs: make(map[Key]*run), refused: make(map[Key]struct{})}
		s.pools[uuid] = p
	}
	return p
}

// accept takes starts, in their order: each is refused, or on record and queued
// for its fork. It takes them from the pool's owner alone: to whom the pool was
// given since, the start never arrived.
func (s *server) accept(c *conn, starts []Start) {
	s.mu.Lock()
	var accepted []*run
	var lines []byte
	undo := make(map[*pool]Key)
	for i := range starts {
		st := &starts[i]
		p := s.pool(st.Pool)
		if p.owner != c {
			ev := refusal(st, true, errNotOwner.Error())
			c.sendEvent(&ev)
			continue
		}
		if err := acceptable(p, st); err != nil {
			ev := refusal(st, false, err.Error())
			c.sendEvent(&ev)
			continue
		}
		r, err := s.prepare(p, st)
		if err != nil {
			p.refuse(c, st, err.Error())
			continue
		}
		if _, ok := undo[p]; !ok {
			undo[p] = p.mark
		}
		p.mark = r.ev.Key
		delete(p.refused, r.ev.Key)
		accepted = append(accepted, r)
		lines = appendRun(lines, r)
	}
	if len(accepted) == 0 {
		s.mu.Unlock()
		return
	}
	err := s.events.commit(lines)
	s.wrote(err)
	if err != nil {
		for p, mark := range undo {
			p.mark = mark
		}
		for _, r := range accepted {
			s.slots.putBack(slot{n: r.slot, out: r.out, err: r.err})
			s.pools[r.ev.Pool].refuse(c, r.start, err.Error())
		}
		s.mu.Unlock()
		return
	}
	failpoint.Hit(failpoint.RunnerAccepted)
	for _, r := range accepted {
		s.pools[r.ev.Pool].runs[r.ev.Key] = r
		s.count++
	}
	if s.failing {
		s.failing = false
		s.log.Info("log can be written again")
	}
	s.mu.Unlock()
	for _, r := range accepted {
		select {
		case s.queue <- r:
		case <-s.closed:
			return
		}
	}
}

var errNotOwner = errors.New("the pool was not given to this connection, or to another since")

// acceptable returns why a start can never be taken.
func acceptable(p *pool, st *Start) error {
	if !st.Key.After(p.mark) {
		return fmt.Errorf("(%d, %d) is not higher than (%d, %d), the last that was accepted", st.Epoch, st.N, p.mark.Epoch, p.mark.N)
	}
	return check(st)
}

// prepare makes the run of a start. The error may pass.
func (s *server) prepare(p *pool, st *Start) (*run, error) {
	if s.evicted {
		return nil, errEvicted
	}
	if s.count >= maxRuns {
		return nil, fmt.Errorf("%d runs have not been acknowledged", s.count)
	}
	for k := range p.refused {
		if st.After(k) {
			return nil, fmt.Errorf("(%d, %d) before it was refused", k.Epoch, k.N)
		}
	}
	sl, err := s.slots.take()
	if err != nil {
		return nil, err
	}
	limit := st.OutputMax
	if limit <= 0 {
		limit = OutputMaxDefault
	}
	return &run{
		ev: Event{
			// Copies, so as not to keep all that came with the start.
			Key:  Key{Pool: p.mark.Pool, Epoch: st.Epoch, N: st.N},
			Job:  strings.Clone(st.Job),
			Kind: Accepted, At: time.Now(),
			Out: File{Path: s.slots.path(sl.n, "out")},
			Err: File{Path: s.slots.path(sl.n, "err")},
		},
		slot: sl.n, out: sl.out, err: sl.err,
		max:   max(limit, OutputMin),
		start: st,
	}, nil
}

// check refuses what execve would cut short.
func check(st *Start) error {
	if st.Path == "" {
		return errors.New("no program is named")
	}
	for _, list := range [][]string{{st.Job, st.Path, st.Dir}, st.Args, st.Env} {
		if slices.ContainsFunc(list, func(s string) bool { return strings.ContainsRune(s, 0) }) {
			return errors.New("a NUL in job, path, directory, arguments or environment")
		}
	}
	return nil
}

func refusal(st *Start, temporary bool, reason string) Event {
	return Event{Key: st.Key, Kind: Refused, Job: st.Job, Temporary: temporary, Reason: reason, At: time.Now()}
}

// record writes the last event of runs to the log, and tells their owners. An
// end that cannot be written is told all the same: the agent has a journal of
// its own, and the line is written when there is room.
func (s *server) record(runs ...*run) {
	s.lines = s.lines[:0]
	for _, r := range runs {
		s.lines = appendRun(s.lines, r)
	}
	s.events.add(s.lines)
	s.wrote(s.events.flush())
	for _, r := range runs {
		switch r.ev.Kind {
		case Started:
			failpoint.Hit(failpoint.RunnerStarted)
		case Exited:
			failpoint.Hit(failpoint.RunnerExited)
		}
		if c := s.pools[r.ev.Pool].owner; c != nil {
			c.sendEvent(&r.ev)
			if !slices.Contains(s.told, c) {
				s.told = append(s.told, c)
			}
		}
	}
	s.tidyLog()
}

// unlock releases the server, and sends what record has told.
func (s *server) unlock() {
	told := s.told
	s.told = nil
	s.mu.Unlock()
	for _, c := range told {
		c.flush()
	}
}

// wrote says once that the log cannot be written. Short lines may fit where a
// start does not: it can be written again when one was accepted.
func (s *server) wrote(err error) {
	if err != nil && !s.failing {
		s.failing = true
		s.log.Error("cannot write the log, refusing starts", "err", err)
	}
}

// tidyLog writes the log anew when it has grown.
func (s *server) tidyLog() {
	l := s.events
	if l.size < l.busy && (s.count > 0 || l.size < l.idle) {
		return
	}
	if err := l.compact(s.snapshotLog()); err != nil {
		s.log.Warn("the log goes on growing", "err", err)
	}
}

// snapshotLog returns the shortest log that says the same.
func (s *server) snapshotLog() []byte {
	b := appendBegin(nil, s.boot, s.id)
	for _, p := range s.pools {
		if p.mark.Epoch == 0 && p.mark.N == 0 {
			continue
		}
		b = appendRecord(b, recMark, p.mark, "")
		for _, r := range p.runs {
			b = appendHistory(b, r)
		}
	}
	return b
}

// appendHistory appends all lines that are needed to know a run.
func appendHistory(b []byte, r *run) []byte {
	past := &run{ev: r.ev, slot: r.slot, max: r.max}
	past.ev.Kind = Accepted
	b = appendRun(b, past)
	if r.ev.Kind != Accepted && r.ev.PID != 0 {
		past.ev.Kind = Started
		b = appendRun(b, past)
	}
	if r.ev.Out.Dropped > 0 || r.ev.Err.Dropped > 0 {
		b = appendTrim(b, r)
	}
	if r.ev.Kind.Ended() {
		b = appendRun(b, r)
	}
	return b
}

// acknowledge forgets runs that have ended, and starts that were refused to c.
func (s *server) acknowledge(c *conn, keys []Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		p := s.pools[k.Pool]
		if p == nil {
			continue
		}
		if p.owner == c {
			delete(p.refused, k)
		}
		r := p.runs[k]
		if r == nil || !r.ev.Kind.Ended() {
			continue
		}
		delete(p.runs, k)
		s.count--
		// It is written with the next event: until then the worst is that the
		// agent is told of the run again.
		s.events.add(appendRecord(nil, recAck, k, ""))
		s.slots.release(r.slot, r.ev.Out.Size > 0 || r.ev.Err.Size > 0)
	}
	s.tidyLog()
}

// list makes c the owner of a pool and sends it what is known. The owner before
// would wait in vain for events: its connection ends, so that it asks again if it
// is not the one that is gone. After a pause of this process the requests of a
// dead agent and of the next one may be read in any order.
func (s *server) list(c *conn, request uint64, uuid string) {
	s.mu.Lock()
	defer s.unlock()
	s.introduce()
	s.wrote(s.events.flush())
	p := s.pool(uuid)
	if p.owner != nil && p.owner != c {
		p.owner.close()
	}
	p.owner = c
	clear(p.refused)
	snap := Snapshot{Mark: p.mark}
	for _, r := range p.runs {
		snap.Runs = append(snap.Runs, r.ev)
	}
	slices.SortFunc(snap.Runs, func(a, b Event) int {
		if a.After(b.Key) {
			return 1
		}
		return -1
	})
	c.sendSnapshot(request, &snap)
}

// leave ends the ownership of a connection that is closed.
func (s *server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pools {
		if p.owner == c {
			p.owner = nil
		}
	}
}

func (s *server) find(k Key) (*run, error) {
	if p := s.pools[k.Pool]; p != nil && p.runs[k] != nil {
		return p.runs[k], nil
	}
	return nil, fmt.Errorf("no run (%d, %d) of this pool is known", k.Epoch, k.N)
}
