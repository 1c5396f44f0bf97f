package agent

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/metrics"
)

func TestNotReady(t *testing.T) {
	b := newBench(t)
	b.adjust = func(c *Config) { c.Stats = NewStats() }
	s := b.start()
	b.want(b.submit("jls"), cbsdmq.Done, 0)
	if reasons := s.NotReady(); len(reasons) > 0 {
		t.Errorf("not ready: %q", reasons)
	}
	b.machine.setAway(true)
	b.machine.lose()
	eventually(t, "the runner is missed", func() bool {
		return slices.Contains(s.NotReady(), "no command can be started: "+errFakeGone.Error())
	})
	why := "the disk of the journal is full: no space left on device"
	s.trouble.Store(&why)
	if reasons := s.NotReady(); len(reasons) != 2 || reasons[0] != "the journal cannot be written: "+why {
		t.Errorf("%q", reasons)
	}
	if err := s.Alive(t.Context()); err != nil { // a job is counted when its reply is on its way
		t.Error(err)
	}
	var page metrics.Page
	s.Metrics(t.Context(), &page)
	s.cfg.Stats.Metrics("pool1", &page)
	var text strings.Builder
	if _, err := page.WriteTo(&text); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`cbsdmq_pool_ready{pool="pool1"} 0`, `cbsdmq_runner_up{pool="pool1"} 0`, `cbsdmq_journal_writable{pool="pool1"} 0`,
		`cbsdmq_jobs_ended_total{pool="pool1",state="done"} 1`, `cbsdmq_replies_owed{pool="pool1",broker="mem"} 0`,
	} {
		if !strings.Contains(text.String(), line+"\n") {
			t.Errorf("no %s in\n%s", line, text.String())
		}
	}
	for _, f := range Families() {
		if !strings.Contains(text.String(), "# TYPE "+f.Name+" ") {
			t.Errorf("no sample of %s", f.Name)
		}
	}
	b.machine.setAway(false)
}

// A loop that hangs is told from one that has nothing to do.
func TestAlive(t *testing.T) {
	b := newBench(t)
	s := b.start()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Alive(ctx); err != nil {
		t.Error(err)
	}
	hang := make(chan struct{})
	s.post(t.Context(), func(*loop) { <-hang })
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Alive(ctx); err == nil {
		t.Error("a loop that hangs is alive")
	}
	close(hang)
}
