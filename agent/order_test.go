package agent

import (
	"testing"

	"github.com/cbsd/cbsdmq"
)

// TestOrderOverRestart: two jobs for one guest arrive together. While the first
// one's guest is looked at the second one must not overtake it in the journal,
// or the next agent would think that it was first.
func TestOrderOverRestart(t *testing.T) {
	b := newBench(t)
	first := b.submit("jstart", "jname=jail1")
	second := b.submit("jset", "jname=jail1")
	b.start()
	b.running(first)
	eventually(t, "the second is in the journal", func() bool { row, _ := b.row(second); return row != nil })
	f, err := b.row(first)
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.row(second)
	if err != nil {
		t.Fatal(err)
	}
	if f.Seq > s.Seq {
		t.Errorf("the second job overtook the first in the journal: %d, %d", s.Seq, f.Seq)
	}
	b.stop()
	b.start()
	third := b.submit("jget", "jname=jail1") // a round trip through the new agent
	b.want(third, cbsdmq.Done, 0)
	b.begunOnce()
	b.finish(first, 0, "")
	b.want(first, cbsdmq.Done, 0)
	b.want(second, cbsdmq.Done, 0)
	b.begunOnce()
}
