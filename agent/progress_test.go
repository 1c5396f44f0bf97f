package agent

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd"
)

func TestMeasureLook(t *testing.T) {
	begun := time.Now()
	m := new(measure)
	for _, c := range []struct {
		after time.Duration
		is    cbsd.Moved
		size  int64
		want  *cbsdmq.Work
	}{
		{2 * time.Second, cbsd.Moved{Percent: -1}, 0, nil},
		{3 * time.Second, cbsd.Moved{Percent: -1, What: "a", Bytes: 100, Of: 1000}, 0, &cbsdmq.Work{What: "a", Percent: 10, Bytes: 100, Of: 1000}},
		{13 * time.Second, cbsd.Moved{Percent: -1, What: "a", Bytes: 300, Of: 1000}, 0, &cbsdmq.Work{What: "a", Percent: 30, Bytes: 300, Of: 1000, Left: 35}},
		{14 * time.Second, cbsd.Moved{Percent: -1, What: "b", Bytes: 50, Of: 100}, 0, &cbsdmq.Work{What: "b", Percent: 50, Bytes: 50, Of: 100}},
		{15 * time.Second, cbsd.Moved{Percent: -1, What: "b", Bytes: 100, Of: 100}, 0, &cbsdmq.Work{What: "b", Percent: 99, Bytes: 100, Of: 100}},
		{16 * time.Second, cbsd.Moved{Percent: 20}, 10, &cbsdmq.Work{Percent: 20}},
		{26 * time.Second, cbsd.Moved{Percent: 40}, 10, &cbsdmq.Work{Percent: 40, Left: 30}},
		{100 * time.Second, cbsd.Moved{Percent: 40}, 11, &cbsdmq.Work{Percent: 40, Left: 252}}, // it has printed something
		{219 * time.Second, cbsd.Moved{Percent: 40}, 11, &cbsdmq.Work{Percent: 40, Left: 609}},
		{220 * time.Second, cbsd.Moved{Percent: 40}, 11, &cbsdmq.Work{Percent: 40, Still: 120}},
		{221 * time.Second, cbsd.Moved{Percent: -1}, 11, nil},
		{400 * time.Second, cbsd.Moved{Percent: -1}, 11, &cbsdmq.Work{Still: 179}},
	} {
		m.look(begun.Add(c.after), begun, c.is, c.size)
		switch {
		case m.work == nil && c.want == nil:
		case m.work == nil || c.want == nil || *m.work != *c.want:
			t.Errorf("after %s: got %+v, want %+v", c.after, m.work, c.want)
		}
	}
}

// Who asked for a stream is told how far a command is; an original client gets
// its one reply and nothing before it.
func TestProgressOnTheWire(t *testing.T) {
	b := newBench(t)
	s := b.start()
	b.cbsd.bytes.Store(300)
	j := b.job("jstart", "jname=jail1")
	j.Meta.Stream = true
	put := time.Now()
	streamed, plain := b.put(j), b.submit("jstart", "jname=jail2")
	b.running(streamed)
	b.running(plain)
	if w := s.work(t.Context(), streamed); w != nil && time.Since(put) < workAfter {
		t.Errorf("a command that has just begun was looked at: %+v", w)
	}
	told := func() cbsdmq.Reply { // the newest
		list := b.early(streamed)
		if len(list) == 0 {
			return cbsdmq.Reply{}
		}
		return list[len(list)-1]
	}
	eventually(t, "the client is told", func() bool { return told().Work != nil })
	p := told()
	if p.Progress != 30 || p.Work.Percent != 30 || p.Work.Bytes != 300 || p.Work.Of != 1000 || p.Work.What != "growing" || len(p.Output()) > 0 {
		t.Errorf("%+v, %+v", p, p.Work)
	}
	b.cbsd.bytes.Store(2000) // more than was thought
	eventually(t, "the client is told that it goes on", func() bool { return told().Progress == 99 })
	if info := b.state(s, streamed); info.Progress != 99 || info.Work == nil || info.State != cbsdmq.Running {
		t.Errorf("on the control lane: %+v", info)
	}
	b.finish(streamed, 0, "x")
	b.finish(plain, 0, "x")
	if r := b.want(streamed, cbsdmq.Done, 0); r.Work != nil || r.Progress != 100 {
		t.Errorf("the last reply: %+v", r)
	}
	b.want(plain, cbsdmq.Done, 0)
	if n := len(b.early(plain)); n > 0 {
		t.Errorf("%d replies that nobody asked for", n)
	}
}

// Where the disk hangs at which a command's progress shows, who asks is told what
// was known before, and in the end that nothing moves. Many may ask: there is one
// look, and other requests are answered.
func TestDiskHangs(t *testing.T) {
	b := newBench(t)
	s := b.start()
	b.cbsd.bytes.Store(300)
	id := b.submit("jstart", "jname=jail1")
	eventually(t, "the agent knows that it runs", func() bool { _, ok := s.live.run(id); return ok })
	set := func(change func(r *liveRun)) {
		s.live.mu.Lock()
		defer s.live.mu.Unlock()
		r := s.live.runs[id]
		change(&r)
		s.live.runs[id] = r
	}
	set(func(r *liveRun) { r.began = r.began.Add(-workAfter) })
	eventually(t, "it is looked at", func() bool { w := b.state(s, id).Work; return w != nil && w.Bytes == 300 })
	stuck := make(chan struct{})
	b.cbsd.hangs.Store(&stuck)
	set(func(r *liveRun) {
		r.measure.mu.Lock()
		defer r.measure.mu.Unlock()
		r.measure.at = time.Time{} // it is time for another look
	})
	b.cbsd.bytes.Store(600)
	begun := time.Now()
	var all sync.WaitGroup
	for range 3 * maxRequests {
		all.Go(func() {
			resp, err := s.answer(t.Context(), cbsdmq.Request{Op: cbsdmq.OpStatus, Job: id})
			if err != nil || resp.Job.Work == nil || resp.Job.Work.Bytes != 300 {
				t.Errorf("while it hangs: %+v, %v", resp.Job, err)
			}
		})
	}
	all.Wait()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("answered after %s", took)
	}
	eventually(t, "it is looked at, once", func() bool { return b.cbsd.measuring.Load() == 1 })
	set(func(r *liveRun) {
		r.measure.mu.Lock()
		defer r.measure.mu.Unlock()
		r.measure.since = r.measure.since.Add(-stillAfter)
	})
	if w := b.state(s, id).Work; w == nil || w.Still < int(stillAfter.Seconds()) || w.Bytes != 300 {
		t.Errorf("after long: %+v", w)
	}
	close(stuck)
	eventually(t, "it is looked at again", func() bool { w := b.state(s, id).Work; return w != nil && w.Bytes == 600 && w.Still == 0 })
	eventually(t, "no look goes on", func() bool { return s.looks.Load() == 0 })
	b.finish(id, 0, "x")
	b.want(id, cbsdmq.Done, 0)
}

// A look that panics ends neither the agent nor the job, and is made again.
func TestLookPanics(t *testing.T) {
	b := newBench(t)
	s := b.start()
	b.cbsd.bytes.Store(300)
	b.cbsd.blinded.Store(true)
	id := b.submit("jstart", "jname=jail1")
	eventually(t, "the agent knows that it runs", func() bool { _, ok := s.live.run(id); return ok })
	s.live.mu.Lock()
	r := s.live.runs[id]
	r.began = r.began.Add(-workAfter)
	s.live.runs[id] = r
	s.live.mu.Unlock()
	<-s.lookAt(r)
	if w := b.state(s, id).Work; w != nil {
		t.Errorf("known of what cannot be seen: %+v", w)
	}
	b.cbsd.blinded.Store(false)
	eventually(t, "it is looked at again", func() bool { w := b.state(s, id).Work; return w != nil && w.Bytes == 300 })
	b.finish(id, 0, "x")
	b.want(id, cbsdmq.Done, 0)
}

// A command that stands still is warned of once.
func TestStandsStill(t *testing.T) {
	b := newBench(t)
	var log logged
	b.adjust = func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }
	s := b.start()
	id := b.submit("jstart", "jname=jail1")
	eventually(t, "the agent knows that it runs", func() bool { _, ok := s.live.run(id); return ok })
	s.post(t.Context(), func(l *loop) {
		j := l.byID[id]
		j.row.Begun = j.row.Begun.Add(-2 * stillAfter)
		s.live.mu.Lock()
		defer s.live.mu.Unlock()
		r := s.live.runs[id]
		r.began = j.row.Begun
		r.measure.last, r.measure.moved = s.cfg.CBSD.Measure(t.Context(), r.plan, nil, nil), r.began
		s.live.runs[id] = r
	})
	eventually(t, "it is warned of", func() bool { return log.has("nothing has moved for long") })
	if w := b.state(s, id).Work; w == nil || w.Still < int(stillAfter.Seconds()) {
		t.Errorf("%+v", w)
	}
	b.finish(id, 0, "x")
	b.want(id, cbsdmq.Done, 0)
}

// early takes the replies that have come, and returns those to a job before its
// last.
func (b *bench) early(id string) []cbsdmq.Reply {
	b.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Millisecond)
		ds, err := b.replies.Receive(ctx, 64)
		cancel()
		if err != nil {
			return b.pieces["pool1/"+id]
		}
		b.take(b.t.Context(), ds)
	}
}

// logged is what an agent has logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}
