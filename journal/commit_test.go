package journal

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
)

func TestLifeOfAJob(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	a, b := testAccept(testID(1)), testAccept(testID(2))
	a.Begin = true
	a.Job.Before = []byte("before")
	a.Job.Expires = time.Now().Add(time.Hour)
	commit(t, j, Batch{Accept: []*Accept{a, b}})
	got := get(t, j, a.Job.Seq)
	if d := cmp.Diff(a.Job, got, cmp.Comparer(sameTime)); d != "" {
		t.Errorf("what Commit says of a job is not what it wrote (-said +written):\n%s", d)
	}
	if a.Job.N != 1 || a.Job.State != cbsdmq.Running || a.Job.Host != "host1" || a.Job.Boot != "boot1" || b.Job.N != 0 {
		t.Errorf("got %+v and %+v", a.Job, b.Job)
	}
	g := &Begin{Seq: b.Job.Seq, Before: []byte("b")}
	commit(t, j, Batch{Begin: []*Begin{g}, Finish: []*Finish{done(a.Job.Seq, "hello")}})
	if g.N != 2 {
		t.Errorf("second begin has n %d, want 2", g.N)
	}
	if r := get(t, j, a.Job.Seq); r.Before != nil || r.OutSize != 5 {
		t.Errorf("ended as %+v", r)
	}
	j = reopen(t, j, dir)
	defer j.Close()
	open := openJobs(t, j)
	if len(open) != 1 || open[0].ID != b.Job.ID || open[0].N != 2 || open[0].Epoch != 1 || string(open[0].Before) != "b" {
		t.Fatalf("open jobs %+v", open)
	}
	owed, err := j.Reader().Owed(t.Context())
	if err != nil || len(owed) != 1 || owed[0].Address != a.Address {
		t.Fatalf("owed %+v, %v", owed, err)
	}
	commit(t, j, Batch{Sent: []SentReply{{Seq: a.Job.Seq, Bus: "mem", Tube: "reply1", PutID: 1<<64 - 1, State: Sent}}})
	if owed, err := j.Reader().Owed(t.Context()); err != nil || len(owed) != 0 {
		t.Errorf("still owed %+v, %v", owed, err)
	}
	as, err := j.Reader().Addresses(t.Context(), a.Job.Seq)
	if err != nil || len(as) != 1 || as[0].State != Sent || as[0].PutID != 1<<64-1 || as[0].Sent.IsZero() {
		t.Errorf("addresses %+v, %v", as, err)
	}
	if j.Past() != nil {
		t.Errorf("an untouched journal is from the past: %v", j.Past())
	}
}

// sameTime compares times as the journal keeps them.
func sameTime(a, b time.Time) bool { return micro(a) == micro(b) }

func TestFirstEndStays(t *testing.T) {
	j := openTest(t, t.TempDir())
	defer j.Close()
	seq := accept(t, j, testAccept(testID(1))).Seq
	first, second := done(seq, "first"), done(seq, "second")
	second.State = cbsdmq.Cancelled
	commit(t, j, Batch{Finish: []*Finish{first, second}})
	third := &Finish{Seq: seq, State: cbsdmq.Failed}
	unknown := &Finish{Seq: 99, State: cbsdmq.Failed}
	commit(t, j, Batch{Finish: []*Finish{third, unknown}})
	if first.Late || !second.Late || !third.Late || !unknown.Late {
		t.Errorf("late: %v %v %v %v, want all but the first", first.Late, second.Late, third.Late, unknown.Late)
	}
	if r := get(t, j, seq); r.State != cbsdmq.Done || r.OutSize != 5 {
		t.Errorf("the end was replaced by %+v", r)
	}
}

func TestOnlyOpenJobsBegin(t *testing.T) {
	j := openTest(t, t.TempDir())
	defer j.Close()
	var seqs []int64
	for i := range 3 {
		seqs = append(seqs, accept(t, j, testAccept(testID(i))).Seq)
	}
	commit(t, j, Batch{Finish: []*Finish{done(seqs[0], "")}})
	if _, err := j.write.ExecContext(t.Context(), "UPDATE job SET state = 'held' WHERE seq = ?", seqs[1]); err != nil {
		t.Fatal(err)
	}
	begins := []*Begin{{Seq: seqs[0]}, {Seq: seqs[1]}, {Seq: seqs[2]}, {Seq: 99}}
	commit(t, j, Batch{Begin: begins})
	var got []uint64
	for _, g := range begins {
		got = append(got, g.N)
	}
	if d := cmp.Diff([]uint64{0, 0, 1, 0}, got); d != "" {
		t.Errorf("begins of an ended, a held, a queued and no job (-want +got):\n%s", d)
	}
	again := &Begin{Seq: seqs[2]}
	commit(t, j, Batch{Release: []int64{seqs[0], seqs[1], seqs[2]}, Begin: []*Begin{again}})
	if again.N != 2 {
		t.Errorf("a read that is begun again has n %d, want 2", again.N)
	}
	var states []cbsdmq.State
	for _, seq := range seqs {
		states = append(states, get(t, j, seq).State)
	}
	if d := cmp.Diff([]cbsdmq.State{cbsdmq.Done, cbsdmq.Queued, cbsdmq.Running}, states); d != "" {
		t.Errorf("only the held job is released (-want +got):\n%s", d)
	}
}

func TestCancelFlag(t *testing.T) {
	j := openTest(t, t.TempDir())
	defer j.Close()
	a := testAccept(testID(1))
	a.Job.Flags = Stream | Reads
	seq := accept(t, j, a).Seq
	commit(t, j, Batch{Cancel: []int64{seq, seq}})
	if r := get(t, j, seq); r.Flags != Stream|Reads|Cancelled {
		t.Errorf("flags %b", r.Flags)
	}
}

// A broker that begins its ids again: what is owed to the old ones is known.
func TestBrokerIncarnation(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	defer func() { j.Close() }()
	instance := func(want string) (since int64) {
		t.Helper()
		got, since, err := j.Reader().Broker(t.Context(), "mem")
		if err != nil || got != want {
			t.Errorf("incarnation %q, %v, want %q", got, err, want)
		}
		return since
	}
	instance("")
	commit(t, j, Batch{Broker: []Broker{{Bus: "mem", Instance: "one"}, {Bus: "nats", Instance: "other"}}})
	if since := instance("one"); since != 1 {
		t.Errorf("the first incarnation gave job %d first", since)
	}
	sent, owed, ours := legacyAccept(17, "a"), legacyAccept(18, "b"), testAccept(testID(1))
	elsewhere := legacyAccept(19, "c")
	elsewhere.Address.Bus = "nats"
	commit(t, j, Batch{Accept: []*Accept{sent, owed, ours, elsewhere}})
	commit(t, j, Batch{
		Broker: []Broker{{Bus: "mem", Instance: "two"}},
		Sent:   []SentReply{{Seq: sent.Job.Seq, Bus: "mem", Tube: sent.Address.Tube, State: Sent}},
	})
	j = reopen(t, j, dir)
	if since := instance("two"); since != elsewhere.Job.Seq+1 {
		t.Errorf("job %d is said to be the first of the second incarnation", since)
	}
	owes, err := j.Reader().OwedByID(t.Context(), "mem")
	if err != nil || len(owes) != 1 || owes[0].Seq != owed.Job.Seq || !owes[0].Address.BrokerID {
		t.Errorf("owed by id: %+v, %v", owes, err)
	}
}

// A batch that cannot be written leaves nothing behind, in the file and in
// memory.
func TestFailedCommit(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	defer func() { j.Close() }()
	a := testAccept(testID(1))
	seq := accept(t, j, a).Seq
	before := j.Meta()

	big := testAccept(testID(2))
	big.Begin, big.Job.Plan = true, bytes.Repeat([]byte("x"), 1<<20)
	batch := &Batch{
		Accept:    []*Accept{testAccept(testID(3)), big},
		Begin:     []*Begin{{Seq: seq}},
		Finish:    []*Finish{done(seq, "")},
		Tombstone: []string{testID(4)},
	}
	fill(t, j)
	err := j.Commit(batch)
	if !Full(err) {
		t.Fatalf("a commit into a full database: %v", err)
	}
	wantHint(t, err, cbsdmq.CodeUnavailable, "make room")
	if d := cmp.Diff(before, j.Meta()); d != "" {
		t.Errorf("the counters changed (-before +after):\n%s", d)
	}
	if js := openJobs(t, j); len(js) != 1 || js[0].State != cbsdmq.Queued {
		t.Errorf("after a failed commit: %+v", js)
	}
	unfill(t, j)
	if err := j.Commit(batch); err != nil {
		t.Fatalf("the same batch again: %v", err)
	}
	if big.Job.N != 1 || batch.Begin[0].N != 2 || j.Meta().N != 2 || j.Meta().Commits != before.Commits+1 {
		t.Errorf("begins are numbered %d and %d, meta %+v", big.Job.N, batch.Begin[0].N, j.Meta())
	}
	j = reopen(t, j, dir)
	if d := cmp.Diff([]string{testID(2), testID(3)}, ids(openJobs(t, j))); d != "" {
		t.Errorf("open (-want +got):\n%s", d)
	}
}

// SQLite rolls back by itself when the disk is full, but not for every error.
func TestFailureInTheMiddle(t *testing.T) {
	j := openTest(t, t.TempDir())
	defer j.Close()
	const trigger = "CREATE TEMP TRIGGER fail BEFORE UPDATE OF flags ON job BEGIN SELECT RAISE(FAIL, 'no'); END"
	if _, err := j.write.ExecContext(t.Context(), trigger); err != nil {
		t.Fatal(err)
	}
	a, b := testAccept(testID(1)), testAccept(testID(2))
	a.Begin = true
	if err := j.Commit(&Batch{Accept: []*Accept{a}, Cancel: []int64{1}}); err == nil {
		t.Fatal("it was written")
	}
	b.Begin = true
	commit(t, j, Batch{Accept: []*Accept{b}})
	if js := openJobs(t, j); len(js) != 1 || js[0].ID != testID(2) || js[0].N != 1 || j.Meta().N != 1 {
		t.Errorf("after a failed commit: %+v", js)
	}
}

// A tester is a *testing.T or a *rapid.T.
type tester interface {
	Helper()
	Fatal(args ...any)
}

// fill makes the database unable to grow, as on a full disk.
func fill(t tester, j *Journal) {
	t.Helper()
	var pages int
	if err := j.write.QueryRowContext(context.Background(), "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	setPages(t, j, pages)
}

func unfill(t tester, j *Journal) { setPages(t, j, 1<<30) }

func setPages(t tester, j *Journal, n int) {
	t.Helper()
	var is int
	// PRAGMA takes no parameters.
	if err := j.write.QueryRowContext(context.Background(), fmt.Sprint("PRAGMA max_page_count = ", n)).Scan(&is); err != nil {
		t.Fatal(err)
	}
}
