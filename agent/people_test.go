package agent

import (
	"database/sql"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
)

func (b *bench) ask(s *Server, req cbsdmq.Request) cbsdmq.Response {
	b.t.Helper()
	req.By = "anna"
	resp, err := s.answer(b.t.Context(), req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", req.Op, req.Guest, err)
	}
	return resp
}

// state waits until the journal has a job, and is where it is.
func (b *bench) state(s *Server, id string) cbsdmq.JobInfo {
	b.t.Helper()
	var in cbsdmq.JobInfo
	eventually(b.t, "job "+id+" is in the journal", func() bool {
		resp, err := s.answer(b.t.Context(), cbsdmq.Request{Op: cbsdmq.OpStatus, Job: id})
		if err != nil {
			return false
		}
		in = *resp.Job
		return true
	})
	return in
}

func (b *bench) begun(id string) bool {
	begun, _ := b.machine.snapshot()
	return slices.ContainsFunc(begun, func(s string) bool { return strings.HasPrefix(s, "pool1/"+id+" ") })
}

// While a guest is paused its jobs are accepted and none that changes it is
// begun, also by the next agents; then they run in their order.
func TestPauseGuest(t *testing.T) {
	b := newBench(t)
	s := b.start()
	running := b.submit("jstart", "jname=jail1") // it goes on
	b.running(running)
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "jail1", Reason: "disk swap"})
	b.finish(running, 0, "")
	b.want(running, cbsdmq.Done, 0)
	first, second := b.submit("jset", "jname=jail1"), b.submit("jstart", "jname=jail1")
	for _, id := range []string{first, second} {
		if in := b.state(s, id); in.State != cbsdmq.Queued || !in.Paused {
			t.Errorf("%+v", in)
		}
	}
	b.want(b.submit("jget", "jname=jail1"), cbsdmq.Done, 0) // reads go on
	b.want(b.submit("jset", "jname=jail2"), cbsdmq.Done, 0) // others too

	for range 2 {
		b.stop()
		s = b.start()
		b.want(b.submit("jset", "jname=jail2"), cbsdmq.Done, 0)
	}
	if got := b.ask(s, cbsdmq.Request{Op: cbsdmq.OpPauses}).Pauses; len(got) != 1 || got[0].Guest != "jail1" || got[0].Reason != "disk swap" || got[0].By != "anna" || time.Since(got[0].Since) > time.Minute {
		t.Errorf("paused: %+v", got)
	}
	waits := b.ask(s, cbsdmq.Request{Op: cbsdmq.OpWhy, Job: first}).Waits
	if len(waits) != 1 || len(waits[0].Causes) != 1 || waits[0].Causes[0].Kind != "pause" || waits[0].Causes[0].Text != "guest jail1 is paused by anna: disk swap" {
		t.Errorf("why: %+v", waits)
	}
	waits = b.ask(s, cbsdmq.Request{Op: cbsdmq.OpWhy, Guest: "jail1"}).Waits
	if len(waits) != 2 || len(waits[1].Causes) != 2 || waits[1].Causes[1].Kind != "lane" || waits[1].Causes[1].Job != "pool1/"+first {
		t.Errorf("why: %+v", waits)
	}
	if b.begun(first) || b.begun(second) {
		t.Fatal("a job of a paused guest was begun")
	}
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpResume, Guest: "jail1"})
	b.want(first, cbsdmq.Done, 0)
	b.finish(second, 0, "")
	b.want(second, cbsdmq.Done, 0)
	b.begunOnce()
	if _, err := s.answer(t.Context(), cbsdmq.Request{Op: cbsdmq.OpResume, Guest: "jail1", By: "anna"}); cbsdmq.CodeOf(err) != cbsdmq.CodeNotFound {
		t.Errorf("resumed twice: %v", err)
	}
	if _, err := s.answer(t.Context(), cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "nosuch", By: "anna"}); cbsdmq.CodeOf(err) != cbsdmq.CodeNotFound {
		t.Errorf("a guest that is not there was paused: %v", err)
	}
	var acts []string
	for _, a := range b.ask(s, cbsdmq.Request{Op: cbsdmq.OpActs}).Acts {
		acts = append(acts, a.By+" "+a.What+" "+a.Guest+" "+a.Reason)
	}
	if d := cmp.Diff([]string{"anna resume jail1 ", "anna pause jail1 disk swap"}, acts); d != "" {
		t.Errorf("acts (-want +got):\n%s", d)
	}
}

func TestPausePool(t *testing.T) {
	b := newBench(t)
	s := b.start()
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpPause, Reason: "move"})
	open := b.cbsd.block()
	guest, free := b.submit("jset", "jname=jail1"), b.submit("jmake")
	b.state(s, guest)
	b.state(s, free)
	b.want(b.submit("jget", "jname=jail1"), cbsdmq.Done, 0)
	in := s.fullInfo(t.Context())
	eventually(t, "the oldest is told", func() bool { in = s.fullInfo(t.Context()); return !in.Oldest.IsZero() }) // it is left out where it takes long
	if in.Paused == nil || in.Paused.Reason != "move" || in.PausedGuests != 0 || in.Queued != 2 {
		t.Errorf("%+v", in)
	}
	if g := b.ask(s, cbsdmq.Request{Op: cbsdmq.OpGuests, Guest: "jail1"}).Guests; len(g) != 1 || g[0].Paused == nil || g[0].Queued != 1 {
		t.Errorf("%+v", g)
	}
	if b.begun(guest) || b.begun(free) || len(b.cbsd.looks) > 0 {
		t.Fatal("a job of a paused pool was begun, or its guest was looked at")
	}
	open()
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpResume})
	b.want(guest, cbsdmq.Done, 0)
	b.want(free, cbsdmq.Done, 0)
}

// An agent whose disk does not answer says how it is all the same.
func TestStatusOfStuckPool(t *testing.T) {
	b := newBench(t)
	s := b.start()
	eventually(t, "guests are counted", func() bool { // it leaves out what cannot be read in time
		in := s.fullInfo(t.Context())
		return in.Guests == 1 && in.GuestsOn == 1
	})
	stuck := make(chan struct{})
	b.cbsd.mu.Lock()
	b.cbsd.stuck = stuck
	b.cbsd.mu.Unlock()
	for range 2 {
		begun := time.Now()
		if in := s.fullInfo(t.Context()); in.Guests != 0 || in.Pool != "pool1" || time.Since(begun) > 10*surveyWait {
			t.Errorf("after %s: %+v", time.Since(begun), in)
		}
	}
	close(stuck)
	eventually(t, "guests are counted again", func() bool { return s.fullInfo(t.Context()).Guests == 1 })
}

// What is being looked at when its guest is paused is not begun either.
func TestPauseWhileLooking(t *testing.T) {
	b := newBench(t)
	open := b.cbsd.block()
	s := b.start()
	id := b.submit("jset", "jname=jail1")
	b.cbsd.looking(t)
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "jail1"})
	open()
	if in := b.state(s, id); in.State != cbsdmq.Queued {
		t.Errorf("it is %s", in.State)
	}
	b.want(b.submit("jset", "jname=jail2"), cbsdmq.Done, 0)
	if b.begun(id) {
		t.Fatal("a job of a paused guest was begun")
	}
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpResume, Guest: "jail1"})
	b.want(id, cbsdmq.Done, 0)
}

// A paused job does not take the place of one that may run, and may be cancelled.
func TestPausedJobs(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.Workers = 1 }
	s := b.start()
	long := b.submit("jstart", "jname=jail2")
	b.running(long)
	id := b.submit("jset", "jname=jail1")
	b.state(s, id)
	if w := b.ask(s, cbsdmq.Request{Op: cbsdmq.OpWhy, Guest: "jail1"}).Waits; len(w) != 1 || len(w[0].Causes) != 1 || w[0].Causes[0].Kind != "worker" {
		t.Errorf("why: %+v", w)
	}
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "jail1"})
	behind := b.submit("jset", "jname=jail3")
	b.state(s, behind)
	b.finish(long, 0, "")
	b.want(behind, cbsdmq.Done, 0)
	if err := s.cancel(t.Context(), cbsdmq.Request{Job: id, By: "anna"}); err != nil {
		t.Fatal(err)
	}
	b.want(id, cbsdmq.Cancelled, cbsdmq.ExitCancelled)
	if a := b.ask(s, cbsdmq.Request{Op: cbsdmq.OpActs, Guest: "jail1"}).Acts; len(a) != 2 || a[0].What != "cancel" || a[0].Job != "pool1/"+id {
		t.Errorf("acts %+v", a)
	}
}

// A begin that no runner has seen is taken back where the guest was paused
// since.
func TestPauseBeforeStart(t *testing.T) {
	b := newBench(t)
	s := b.start()
	b.want(b.submit("jset", "jname=jail2"), cbsdmq.Done, 0) // the runner's directory is marked
	b.machine.setLost(true)
	id := b.submit("jset", "jname=jail1")
	eventually(t, "it is begun in the journal", func() bool { return b.state(s, id).State == cbsdmq.Running })
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "jail1"})
	b.stop()
	b.machine.setLost(false)
	s = b.start()
	eventually(t, "its begin is taken back", func() bool { return b.state(s, id).State == cbsdmq.Queued })
	if b.begun(id) {
		t.Fatal("it was begun")
	}
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpResume, Guest: "jail1"})
	b.want(id, cbsdmq.Done, 0)
	b.begunOnce()
}

func TestWhyForeign(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.ForeignWait = time.Hour }
	b.cbsd.setForeign("jail1", true)
	s := b.start()
	id := b.submit("jset", "jname=jail1")
	b.state(s, id)
	w := b.ask(s, cbsdmq.Request{Op: cbsdmq.OpWhy, Guest: "jail1"}).Waits
	if len(w) != 1 || len(w[0].Causes) != 1 || w[0].Causes[0].Kind != "foreign" || !strings.Contains(w[0].Causes[0].Text, "pid 4711") {
		t.Errorf("why: %+v", w)
	}
	if g := b.ask(s, cbsdmq.Request{Op: cbsdmq.OpGuests}).Guests; len(g) != 1 || g[0].Busy != "cbsd bstart jail1" || g[0].Job != "" || g[0].Queued != 1 {
		t.Errorf("guests: %+v", g)
	}
	waited := func() (since time.Time) {
		seen := make(chan time.Time)
		s.post(t.Context(), func(l *loop) { seen <- l.byID[id].busySince })
		return <-seen
	}
	eventually(t, "the foreign command was seen", func() bool { return !waited().IsZero() })
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "jail1"})
	if !waited().IsZero() {
		t.Error("foreign_wait goes on while a person works on the paused guest")
	}
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpResume, Guest: "jail1"})
	b.cbsd.setForeign("jail1", false)
	b.want(id, cbsdmq.Done, 0)
	long := b.submit("jstart", "jname=jail1")
	b.running(long)
	if g := b.ask(s, cbsdmq.Request{Op: cbsdmq.OpGuests}).Guests; g[0].Busy != "jstart" || g[0].Job != "pool1/"+long || g[0].Queued != 0 {
		t.Errorf("guests: %+v", g)
	}
}

// A person settles an unknown end. The job's own end stays, and its reply.
func TestResolve(t *testing.T) {
	b := newBench(t)
	s := b.start()
	id := b.submit("jstart", "jname=jail1")
	b.running(id)
	if _, err := s.answer(t.Context(), cbsdmq.Request{Op: cbsdmq.OpResolve, Job: id, State: cbsdmq.Done, By: "anna"}); cbsdmq.CodeOf(err) != cbsdmq.CodeRefused {
		t.Errorf("a job that runs was settled: %v", err)
	}
	b.machine.lose()
	r := b.want(id, cbsdmq.Unknown, cbsdmq.ExitUnknown)
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpResolve, Job: id, State: cbsdmq.Failed, Reason: "a mistake"})
	b.ask(s, cbsdmq.Request{Op: cbsdmq.OpResolve, Job: id, State: cbsdmq.Done, Reason: "it runs"})
	for range 2 {
		resp := b.ask(s, cbsdmq.Request{Op: cbsdmq.OpStatus, Job: id})
		v := resp.Job.Verdict
		if v == nil || v.State != cbsdmq.Done || v.By != "anna" || v.Reason != "it runs" || time.Since(v.At) > time.Minute {
			t.Errorf("verdict %+v", v)
		}
		if resp.Job.State != cbsdmq.Unknown || resp.Job.ErrCode != cbsdmq.ExitUnknown || resp.Final.Reason != r.Reason {
			t.Errorf("its own end was changed: %+v, %+v", resp.Job, resp.Final)
		}
		b.stop()
		s = b.start()
		b.want(b.submit("jget", "jname=jail1"), cbsdmq.Done, 0)
	}
	acts := b.ask(s, cbsdmq.Request{Op: cbsdmq.OpActs, Limit: 1})
	if len(acts.Acts) != 1 || !acts.More || acts.Acts[0].What != "resolve" || acts.Acts[0].Job != "pool1/"+id || acts.Acts[0].Guest != "jail1" {
		t.Errorf("acts %+v", acts)
	}
}

func TestZFSAnswer(t *testing.T) {
	for out, want := range map[string][3]any{
		"1048576\t2097152\n": {int64(1 << 20), int64(2 << 20), true},
		"":                   {int64(0), int64(0), false},
		"a\tb\n":             {int64(0), int64(0), false},
		"1\t2\n3\t4\n":       {int64(0), int64(0), false},
	} {
		used, free, ok := parseZFS(out)
		if got := [3]any{used, free, ok}; got != want {
			t.Errorf("%q: %v, want %v", out, got, want)
		}
	}
}

// batched has the loop take requests in their order before it writes what came of
// any, and returns what they were answered.
func (b *bench) batched(s *Server, reqs ...cbsdmq.Request) []error {
	b.t.Helper()
	errs := make([]error, len(reqs))
	var wg sync.WaitGroup
	taken := make(chan bool)
	s.post(b.t.Context(), func(l *loop) {
		for i, req := range reqs {
			req.By = "anna"
			wg.Go(func() { _, errs[i] = s.answer(b.t.Context(), req) })
			for n := len(l.batch.Act); n == len(l.batch.Act); {
				select {
				case f := <-s.inbox:
					f(l)
				case <-time.After(20 * time.Second):
					close(taken)
					return
				}
			}
		}
		taken <- true
	})
	if !<-taken {
		b.t.Fatal("a request was not taken")
	}
	wg.Wait()
	return errs
}

// Of two people who ask for opposite things at the same moment, the later one
// has what he asked for, and what he was told.
func TestPauseRightAfterResume(t *testing.T) {
	b := newBench(t)
	s := b.start()
	pause, resume := cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "jail1", Reason: "disk"}, cbsdmq.Request{Op: cbsdmq.OpResume, Guest: "jail1"}
	b.ask(s, pause)
	pause.Reason = "other disk"
	for _, err := range b.batched(s, resume, pause) {
		if err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if p := s.paused().guest("jail1"); p == nil || p.Reason != "other disk" {
			t.Errorf("it is paused by %+v", p)
		}
		b.stop()
		s = b.start()
		b.want(b.submit("jget", "jname=jail1"), cbsdmq.Done, 0)
	}
	for _, err := range b.batched(s, pause, resume) {
		if err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if p := s.paused().guest("jail1"); p != nil {
			t.Errorf("it is paused by %+v", p)
		}
		b.stop()
		s = b.start()
		b.want(b.submit("jget", "jname=jail1"), cbsdmq.Done, 0)
	}
}

// What could not be written of two pauses is undone, whole.
func TestPausesThatCannotBeWritten(t *testing.T) {
	b := newBench(t)
	s := b.start()
	db, err := sql.Open("sqlite", filepath.Join(b.dir, "pool", "journal.sqlite")+"?_pragma=busy_timeout(20000)") // the agent writes, too
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TRIGGER no BEFORE INSERT ON act BEGIN SELECT RAISE(ABORT, 'not now'); END"); err != nil {
		t.Fatal(err)
	}
	pause := cbsdmq.Request{Op: cbsdmq.OpPause, Guest: "jail1"}
	for _, err := range b.batched(s, pause, pause) {
		if err == nil {
			t.Error("it was written")
		}
	}
	if p := s.paused().guest("jail1"); p != nil {
		t.Errorf("it is paused by %+v, and the journal does not know", p)
	}
}
