package agent

import (
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

// The runner is lost while a guest is looked at: the job waits for the next one,
// and takes one worker.
func TestRunnerLostWhileGuestIsLookedAt(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.Workers = 2 }
	open := b.cbsd.block()
	s := b.start()
	id := b.submit("jset", "jname=jail1")
	b.cbsd.looking(t)
	b.machine.setAway(true)
	b.machine.lose()
	eventually(t, "the loss is noticed", func() bool { return s.runner.get() == nil })
	open()
	eventually(t, "the job is in the journal", func() bool { row, _ := b.row(id); return row != nil })
	b.machine.setAway(false)
	b.want(id, cbsdmq.Done, 0)
	long := []string{b.submit("jstart", "jname=jail1"), b.submit("jstart", "jname=jail2")}
	for _, id := range long {
		b.running(id) // both at once: there are two workers
	}
	for _, id := range long {
		b.finish(id, 0, "")
		b.want(id, cbsdmq.Done, 0)
	}
	b.begunOnce()
}

// A runner is lost and the next one is asked what it knows, while the loop is at
// work: what the loop begins then is not given to the new one twice.
func TestBeginWhileRunnerIsReplaced(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.Workers = 1 }
	s := b.start()
	long := b.submit("jstart", "jname=jail1")
	b.running(long)
	id := b.submit("jstart", "jname=jail2")
	eventually(t, "the second job waits for the worker", func() bool { row, err := b.row(id); return err == nil && row != nil })
	old := s.runner.get()
	s.post(t.Context(), func(l *loop) {
		b.machine.lose()
		eventually(t, "there is another runner", func() bool { r := s.runner.get(); return r != nil && r != old })
		j := l.byID[id]
		l.unready(j)
		l.begin(j)
		l.commit()
	})
	b.want(long, cbsdmq.Unknown, cbsdmq.ExitUnknown)
	b.finish(id, 0, "")
	b.want(id, cbsdmq.Done, 0)
	b.begunOnce()
}

// A guest that takes long to look at holds up its own jobs and nothing else.
func TestIntakeWhileGuestIsLookedAt(t *testing.T) {
	b := newBench(t)
	open := b.cbsd.block()
	b.start()
	id := b.submit("jset", "jname=jail1")
	b.cbsd.looking(t)
	b.want(b.submit("jget", "jname=jail2"), cbsdmq.Done, 0)
	open()
	b.want(id, cbsdmq.Done, 0)
	b.begunOnce()
}

// A job that expires while its guest is looked at ends, without another look at
// it each time that the loop goes round.
func TestExpiredWhileGuestIsLookedAt(t *testing.T) {
	b := newBench(t)
	open := b.cbsd.block()
	s := b.start()
	j := b.job("jset", "jname=jail1")
	j.Meta.Expires = time.Now().Add(time.Hour)
	id := b.put(j)
	b.cbsd.looking(t)
	expired := make(chan struct{})
	s.post(t.Context(), func(l *loop) { // now, as the hour is over
		l.byIdent[id].row.Expires = time.Now().Add(-time.Second)
		close(expired)
	})
	<-expired
	open()
	b.want(id, cbsdmq.Refused, cbsdmq.ExitRefused)
	if n := len(b.cbsd.looks); n > 1 {
		t.Errorf("its guest was looked at %d times more", n)
	}
}

// The room for jobs may go while the intake gets ready to take some: a Consumer
// that is asked for none would never return, or at once again and again.
func TestMostReceive(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.Backlog = 1 }
	s := b.start()
	b.running(b.submit("jstart", "jname=jail1"))
	if n := s.mostReceive(); n < 1 {
		t.Errorf("%d", n)
	}
}
