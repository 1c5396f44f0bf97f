package agent

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
)

const (
	workAfter  = 2 * time.Second        // a command that is shorter is not looked at
	workEvery  = time.Second            // between two looks
	lookWait   = 100 * time.Millisecond // then the answer is what the look before saw
	maxLooks   = 64                     // at one time
	stillAfter = 2 * time.Minute        // without anything moving: say so
	stillEvery = 30 * time.Second
	printedEnd = 1 << 10 // what is looked at of the end of the output
)

// A measure is what is known of how far one running command is. It is made when
// somebody asks.
type measure struct {
	mu     sync.Mutex
	since  time.Time // of the look that goes on, zero where there is none
	at     time.Time // of the last look
	first  time.Time // since when bytes, or percents, are those of what it does now
	from   int64     // how many there were then
	moved  time.Time // when something was other than at the look before
	last   cbsd.Moved
	size   int64 // of the output
	work   *cbsdmq.Work
	warned bool
	failed bool // a look, which was said
}

// work says how far a running job is, nil where it does not run, has not run for
// long, or nothing is known of it. Whoever asks more often than once a second
// is told the same again; so is who asks while a look at the disk hangs, as it may
// do for hours where that is NFS or dying.
func (s *Server) work(ctx context.Context, id string) *cbsdmq.Work {
	r, ok := s.live.run(id)
	if !ok || r.measure == nil || r.plan.Class == cbsd.Read || time.Since(r.began) < workAfter {
		return nil
	}
	if looked := s.lookAt(r); looked != nil {
		late := time.NewTimer(lookWait)
		defer late.Stop()
		select {
		case <-looked:
		case <-late.C:
		case <-ctx.Done():
		}
	}
	return r.measure.known(time.Now())
}

// lookAt begins a look at how far a command is, unless there was one just now or
// there is one. The channel is closed when it has ended.
func (s *Server) lookAt(r liveRun) <-chan struct{} {
	m := r.measure
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.since.IsZero() || time.Since(m.at) < workEvery {
		return nil
	}
	if s.looks.Add(1) > maxLooks {
		s.looks.Add(-1)
		return nil
	}
	m.since = time.Now()
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		defer s.looks.Add(-1)
		var is cbsd.Moved
		var size int64
		err := s.guard(func() error {
			out, outSize := printed(r.out)
			errs, errSize := printed(r.err)
			is, size = s.cfg.CBSD.Measure(s.life, r.plan, out, errs), outSize+errSize
			return nil
		})
		m.mu.Lock()
		defer m.mu.Unlock()
		m.since = time.Time{}
		if err == nil {
			m.look(time.Now(), r.began, is, size)
			return
		}
		m.at = time.Now()
		if !m.failed {
			m.failed = true
			s.log.Error("how far a command is cannot be seen", "command", r.plan.Command, "guest", r.plan.Guest, "err", err)
		}
	}()
	return looked
}

// known is what is to be told at now. While a look hangs nothing is known to
// move.
func (m *measure) known(now time.Time) *cbsdmq.Work {
	m.mu.Lock()
	defer m.mu.Unlock()
	still := now.Sub(m.since)
	if m.since.IsZero() || still < stillAfter {
		return m.work
	}
	var w cbsdmq.Work
	if m.work != nil {
		w = *m.work
	}
	w.Still, w.Left = max(w.Still, int(still.Seconds())), 0
	return &w
}

// look takes in what was seen at now.
func (m *measure) look(now, began time.Time, is cbsd.Moved, size int64) {
	m.at = now
	if m.moved.IsZero() {
		m.moved = began
	}
	if is != m.last || size != m.size {
		m.moved, m.warned = now, false
	}
	done, all := is.Bytes, is.Of
	if done == 0 || all == 0 {
		done, all = int64(max(is.Percent, 0)), 100
	}
	if is.What != m.last.What || m.first.IsZero() || done < m.from {
		m.first, m.from = now, done
	}
	m.last, m.size = is, size

	w := cbsdmq.Work{What: is.What, Bytes: is.Bytes, Of: is.Of}
	if done > 0 {
		w.Percent = int(min(max(done*100/all, 1), 99))
	}
	if moved, in := done-m.from, now.Sub(m.first); moved > 0 && in >= workAfter && all > done {
		w.Left = int(min(float64(all-done)/float64(moved)*in.Seconds()+0.5, 1e6))
	}
	if still := now.Sub(m.moved); still >= stillAfter {
		w.Still, w.Left = int(still.Seconds()), 0
	}
	m.work = nil
	if w != (cbsdmq.Work{What: w.What}) {
		m.work = &w
	}
}

// printed returns the end of what a command has printed, and the size of all of
// it.
func printed(file string) (tail []byte, size int64) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0
	}
	size = info.Size()
	tail = make([]byte, min(size, printedEnd))
	n, _ := f.ReadAt(tail, size-int64(len(tail))) // it may have been cut since
	return tail[:n], size
}

// tickStill looks now and then at a command that has run for long, and warns
// where nothing moves.
func (l *loop) tickStill(j *job, now time.Time) {
	if now.Sub(j.row.Begun) < stillAfter || now.Sub(j.looked) < stillEvery || j.plan.Command == cbsd.HoldGuest { // which waits
		return
	}
	j.looked = now
	s, id, printedID := l.s, j.row.ID, j.printedID(l.s.cfg.Pool)
	go func() {
		w := s.work(s.life, id)
		r, ok := s.live.run(id)
		if w == nil || w.Still == 0 || !ok {
			return
		}
		r.measure.mu.Lock()
		first := !r.measure.warned
		r.measure.warned = true
		r.measure.mu.Unlock()
		if first {
			s.log.Warn("nothing has moved for long", "job", printedID, "for", time.Duration(w.Still)*time.Second, "what", w.What,
				"hint", "look at its output: cbsdmq output "+printedID)
		}
	}()
}
