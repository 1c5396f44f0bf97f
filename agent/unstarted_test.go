package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

// A job is cancelled whose begin is in the journal and whose start never reached
// the runner: it does not begin any more.
func TestCancelBetweenBeginAndStart(t *testing.T) {
	for _, command := range []string{"jset", "jget"} {
		t.Run(command, func(t *testing.T) {
			b := newBench(t)
			b.start()
			b.want(b.submit("jset", "jname=jail1"), cbsdmq.Done, 0)
			b.stop()
			job := b.job(command, "jname=jail1")
			b.beginOnly(job, time.Now(), true)
			b.start()
			b.want(job.Meta.ID, cbsdmq.Cancelled, cbsdmq.ExitCancelled)
			b.want(b.submit("jset", "jname=jail1"), cbsdmq.Done, 0)
			if begun, _ := b.machine.snapshot(); len(begun) != 2 {
				t.Errorf("begun: %q", begun)
			}
		})
	}
}

// The time limit of a command begins when it does: not when its begin was
// written, if there was no runner then.
func TestTimeLimitFromStart(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.TimeLimit = time.Minute }
	b.start()
	b.want(b.submit("jset", "jname=jail1"), cbsdmq.Done, 0)
	b.stop()
	job := b.job("jstart", "jname=jail1")
	b.beginOnly(job, time.Now().Add(-time.Hour), false)
	for range 2 { // the next agent counts from there too
		s := b.start()
		b.running(job.Meta.ID)
		begun := time.Now()
		eventually(t, "the agent looked at the limit", func() bool { return time.Since(begun) > tick+tick/2 })
		if r, ok := s.live.run(job.Meta.ID); !ok {
			t.Errorf("it does not run any more: %+v", r)
		}
		b.stop()
	}
	b.start()
	b.finish(job.Meta.ID, 0, "")
	b.want(job.Meta.ID, cbsdmq.Done, 0)
}

// A job whose start never reached the runner has not begun: it can expire.
func TestExpiredBetweenBeginAndStart(t *testing.T) {
	b := newBench(t)
	b.start()
	b.want(b.submit("jset", "jname=jail1"), cbsdmq.Done, 0)
	b.stop()
	job := b.job("jset", "jname=jail1")
	job.Meta.Expires = time.Now().Add(-time.Second)
	b.beginOnly(job, time.Now().Add(-time.Hour), false)
	b.start()
	b.want(job.Meta.ID, cbsdmq.Refused, cbsdmq.ExitRefused)
	if begun, _ := b.machine.snapshot(); len(begun) != 1 {
		t.Errorf("begun: %q", begun)
	}
}

// A read that a runner may have run which has forgotten it runs again, however
// late: also by the next agent it is not said to have expired before it began.
func TestLostReadDoesNotExpire(t *testing.T) {
	b := newBench(t)
	b.start()
	b.want(b.submit("jset", "jname=jail1"), cbsdmq.Done, 0)
	b.stop()
	job := b.job("jget", "jname=jail1")
	job.Meta.Expires = time.Now().Add(-time.Second)
	b.beginOnly(job, time.Now().Add(-time.Hour), false)
	b.machine.forget()
	marks, err := filepath.Glob(filepath.Join(b.machine.dir, "served-*"))
	if err != nil || len(marks) != 1 {
		t.Fatalf("%q, %v", marks, err)
	}
	if err := os.Remove(marks[0]); err != nil {
		t.Fatal(err)
	}
	b.machine.setRefuse(true)
	b.start()
	eventually(t, "it is started again", func() bool { return b.machine.refusals() > 0 })
	b.stop()
	b.machine.setRefuse(false)
	b.start()
	b.want(job.Meta.ID, cbsdmq.Done, 0)
}

// A command that had ended before it could be told to has its own end.
func TestEndedBeforeTheSignal(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.TimeLimit = time.Hour }
	s := b.start()
	id := b.submit("jstart", "jname=jail1")
	eventually(t, "the agent knows that it runs", func() bool { _, ok := s.live.run(id); return ok })
	unmute := b.machine.mute()
	b.finish(id, 3, "")
	s.post(t.Context(), func(l *loop) { // the hour is over
		j := l.byID[id]
		j.row.Begun = j.row.Begun.Add(-2 * time.Hour)
	})
	eventually(t, "it is to be ended", func() bool { return b.machine.late() > 0 })
	unmute()
	b.want(id, cbsdmq.Failed, 3)
}

// beginOnly leaves the journal as an agent does that was killed before it could
// hand the start to the runner.
func (b *bench) beginOnly(job cbsdmq.Job, at time.Time, cancel bool) {
	b.t.Helper()
	j, err := journal.Open(b.t.Context(), journal.Options{
		Path: filepath.Join(b.dir, "pool", "journal.sqlite"), State: filepath.Join(b.dir, "state"), Host: "host1", Boot: b.machine.boot,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	defer j.Close()
	plan, err := b.cbsd.Plan(job)
	if err != nil {
		b.t.Fatal(err)
	}
	row := &journal.Job{ID: job.Meta.ID, Ident: job.Meta.ID, Bus: "mem", Command: job.Command, Guest: plan.Guest, Accepted: at, Expires: job.Meta.Expires}
	if row.Plan, err = json.Marshal(plan); err != nil {
		b.t.Fatal(err)
	}
	a := &journal.Accept{Job: row, Address: journal.Address{Bus: "mem", Tube: bus.MailboxName("reply", b.mailbox)}, Begin: true}
	if err := j.Commit(&journal.Batch{Accept: []*journal.Accept{a}}); err != nil {
		b.t.Fatal(err)
	}
	if !cancel {
		return
	}
	if err := j.Commit(&journal.Batch{Cancel: []int64{row.Seq}}); err != nil {
		b.t.Fatal(err)
	}
}

// The runner refuses a start while the cancel of its job is on its way into the
// journal: it is not started again.
func TestCancelWhileStartIsRefused(t *testing.T) {
	b := newBench(t)
	s := b.start()
	id := b.submit("jstart", "jname=jail1")
	b.running(id)
	cancelled := make(chan error, 1)
	s.post(t.Context(), func(l *loop) {
		j := l.byID[id]
		l.cancel(cbsdmq.Request{Job: id}, func(err error) { cancelled <- err })
		l.event(runner.Event{Key: j.key, Kind: runner.Refused, Temporary: true, Reason: "no space left"})
	})
	if err := <-cancelled; err != nil {
		t.Fatal(err)
	}
	b.want(id, cbsdmq.Cancelled, cbsdmq.ExitCancelled)
	if begun, _ := b.machine.snapshot(); len(begun) != 1 {
		t.Errorf("begun: %q", begun)
	}
}

// A cancel comes for a command that has ended, as the agent does not know yet,
// which is killed then. The next one does not say that the command was cancelled
// while it ran.
func TestCancelAfterTheEnd(t *testing.T) {
	b := newBench(t)
	s := b.start()
	id := b.submit("jstart", "jname=jail1")
	b.running(id)
	b.machine.mute()
	b.finish(id, 3, "")
	if err := s.cancel(t.Context(), cbsdmq.Request{Job: id}); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b.start()
	b.want(id, cbsdmq.Failed, 3)
}

// The start of a command came late to the runner, and somebody else killed the
// command at once, while no agent was there: it did not run for too long.
func TestKilledByOthersBetweenAgents(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.TimeLimit = time.Minute }
	b.start()
	b.want(b.submit("jset", "jname=jail1"), cbsdmq.Done, 0)
	b.stop()
	job := b.job("jstart", "jname=jail1")
	b.beginOnly(job, time.Now().Add(-time.Hour), false)
	b.start()
	b.running(job.Meta.ID)
	b.stop()
	b.machine.kill("pool1/" + job.Meta.ID)
	b.start()
	b.want(job.Meta.ID, cbsdmq.Failed, cbsdmq.ExitSignal+int(syscall.SIGKILL))
}
