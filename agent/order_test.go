package agent

import (
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/journal"
)

// What came behind a job that goes back to the broker goes back with it, or it
// would overtake it. Other brokers' jobs do not.
func TestWhatGoesBackTakesAllBehindIt(t *testing.T) {
	l := newLoop(&Server{})
	var back []string
	for _, a := range []struct {
		id, bus string
		lost    bool
	}{{"1", "mem", false}, {"2", "mem", true}, {"3", "other", false}, {"4", "mem", false}} {
		j := &job{row: &journal.Job{ID: a.id, Ident: a.id, Bus: a.bus}, arrival: &arrival{
			accept: &journal.Accept{}, lost: func() bool { return a.lost }, done: func(error) { back = append(back, a.id) },
		}}
		l.add(j)
		l.enlist(j)
	}
	l.giveBackLost()
	if len(back) != 2 || back[0] != "2" || back[1] != "4" || len(l.accepting) != 2 || len(l.batch.Accept) != 2 {
		t.Errorf("%q went back, %d and %d stay", back, len(l.accepting), len(l.batch.Accept))
	}
}

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
