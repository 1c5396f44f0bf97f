package journal

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
)

// finishAt accepts a job and ends it at a given time, its reply sent.
func finishAt(t testing.TB, j *Journal, id string, at time.Time, output string, sent bool) int64 {
	t.Helper()
	seq := accept(t, j, testAccept(id)).Seq
	f := done(seq, output)
	if len(output) > InlineOutput {
		if err := j.SaveOutput(seq, strings.NewReader(output)); err != nil {
			t.Fatal(err)
		}
		f.Output = nil
	}
	b := Batch{Finish: []*Finish{f}}
	if sent {
		b.Sent = []SentReply{{Seq: seq, Bus: "mem", Tube: "reply1", State: Sent}}
	}
	commit(t, j, b)
	if _, err := j.write.ExecContext(t.Context(), "UPDATE job SET finished = ? WHERE seq = ?", at.UnixMicro(), seq); err != nil {
		t.Fatal(err)
	}
	return seq
}

func pruneAll(t testing.TB, j *Journal, now time.Time, l Limits) (steps int) {
	t.Helper()
	for more := true; more; steps++ {
		var err error
		if more, err = j.Prune(t.Context(), now, l); err != nil {
			t.Fatal(err)
		}
		if steps > 1000 {
			t.Fatal("Prune does not come to an end")
		}
	}
	return steps
}

// What is stale when its clock is behind by so much is not taken when it is as far
// ahead; but an hour is.
func TestAhead(t *testing.T) {
	for ids, want := range map[time.Duration]time.Duration{0: time.Hour, 10 * time.Minute: 10 * time.Minute, 30 * 24 * time.Hour: time.Hour} {
		if got := (Limits{IDs: ids}).Ahead(); got != want {
			t.Errorf("ids for %v may be ahead by %v, want %v", ids, got, want)
		}
	}
}

func TestPrune(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	limits := Limits{Results: 7 * day, IDs: 30 * day}
	for name, c := range map[string]struct {
		limits Limits
		age    time.Duration
		owed   bool
		output bool // what is still there
		row    bool
	}{
		"young":                    {limits, 0, false, true, true},
		"just within":              {limits, 7*day - time.Second, false, true, true},
		"results are over":         {limits, 7*day + time.Second, false, false, true},
		"results over, owed":       {limits, 7*day + time.Second, true, true, true},
		"ids just within":          {limits, 30*day - time.Second, false, false, true},
		"clock of client ahead":    {limits, 30*day + time.Hour, false, false, true},
		"ids are over":             {limits, 30*day + 2*time.Hour + time.Second, false, false, false},
		"ids over, owed":           {limits, 90 * day, true, true, true},
		"results outlast ids":      {Limits{Results: 60 * day, IDs: day}, 59 * day, false, true, true},
		"results outlast ids, end": {Limits{Results: 60 * day, IDs: day}, 61 * day, false, false, false},
		"ids of minutes":           {Limits{time.Minute, 10 * time.Minute, 0}, 30*time.Minute - time.Second, false, false, true},
		"ids of minutes are over":  {Limits{time.Minute, 10 * time.Minute, 0}, 30*time.Minute + time.Second, false, false, false},
		"no limits":                {Limits{}, 3650 * day, false, true, true},
		"no limit of ids":          {Limits{Results: day}, 3650 * day, false, false, true},
		"no limit of results":      {Limits{IDs: day}, 3650 * day, false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			j := openTest(t, memoryDir(t))
			defer j.Close()
			text := strings.Repeat("o", InlineOutput+1)
			inFile := finishAt(t, j, testID(1), now.Add(-c.age), text, !c.owed)
			inline := finishAt(t, j, testID(2), now.Add(-c.age), "short", !c.owed)
			open := accept(t, j, testAccept(testID(3))).Seq // the newest, and not ended
			steps := pruneAll(t, j, now, c.limits)
			for seq, want := range map[int64]string{inFile: text, inline: "short"} {
				r, err := j.Reader().BySeq(t.Context(), seq)
				if err != nil {
					t.Fatal(err)
				}
				if got := r != nil; got != c.row {
					t.Fatalf("job %d is remembered: %v, want %v (%d steps)", seq, got, c.row, steps)
				}
				if r == nil {
					continue
				}
				if !c.output {
					want = ""
				}
				if got := readOutput(t, j.Reader(), seq); got != want {
					t.Errorf("job %d has %d bytes of output, want %d", seq, len(got), len(want))
				}
				if got := r.Plan != nil; got != c.output {
					t.Errorf("job %d has its plan: %v", seq, got)
				}
				if r.State != cbsdmq.Done || r.Result == nil || r.OutSize == 0 {
					t.Errorf("what a repeat is answered with is gone: %+v", r)
				}
				// A repeat never runs.
				again := testAccept(r.ID)
				again.Begin = true
				commit(t, j, Batch{Accept: []*Accept{again}})
				if again.Known == nil || again.Known.Seq != seq {
					t.Errorf("a repeat of job %d was accepted", seq)
				}
			}
			if names := outputFiles(t, j); (len(names) == 1) != c.output {
				t.Errorf("output files: %v", names)
			}
			if r := get(t, j, open); r.Plan == nil || !r.Finished.IsZero() {
				t.Errorf("the open job is %+v", r)
			}
			if addresses := count(t, j, "address"); !c.row && addresses != 1 {
				t.Errorf("%d addresses are left, want that of the open job", addresses)
			}
			if j.kept != sumKept(t, j) {
				t.Errorf("%d bytes are counted, %d are kept", j.kept, sumKept(t, j))
			}
		})
	}
}

func count(t testing.TB, j *Journal, table string) (n int) {
	t.Helper()
	if err := j.read.QueryRowContext(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// sumKept counts what j.kept says, by hand.
func sumKept(t testing.TB, j *Journal) (sum int64) {
	t.Helper()
	err := j.read.QueryRowContext(t.Context(), "SELECT coalesce(sum(coalesce(length(plan), 0) + coalesce(length(output), 0)), 0) FROM job").Scan(&sum)
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(outputDir(j.path))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, f := range files {
		fi, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		sum += fi.Size()
	}
	return sum
}

func TestAliasesAndTombstonesAreForgotten(t *testing.T) {
	j := openTest(t, memoryDir(t))
	defer j.Close()
	first, second := testAccept(testID(1)), testAccept(testID(2))
	first.Job.Key, second.Job.Key = "order", "order"
	commit(t, j, Batch{Accept: []*Accept{first, second}, Tombstone: []string{testID(8), testID(9)}})
	commit(t, j, Batch{Finish: []*Finish{done(first.Job.Seq, "")}})
	sendAll(t, j)
	accept(t, j, testAccept(testID(3)))
	got := func() []int { return []int{count(t, j, "job"), count(t, j, "alias"), count(t, j, "tombstone")} }
	l := Limits{Results: time.Hour, IDs: 10 * time.Hour}
	pruneAll(t, j, later(11), l)
	if d := cmp.Diff([]int{2, 1, 2}, got()); d != "" {
		t.Errorf("within id_memory (-want +got):\n%s", d)
	}
	pruneAll(t, j, later(13), l)
	if d := cmp.Diff([]int{1, 0, 0}, got()); d != "" {
		t.Errorf("after it (-want +got):\n%s", d)
	}
	// Key and id are free again.
	again := testAccept(testID(1))
	again.Job.Key = "order"
	accept(t, j, again)
}

// Numbers of jobs name output files and do not begin again.
func TestNumbersGoOn(t *testing.T) {
	j := openTest(t, memoryDir(t))
	defer j.Close()
	l := Limits{Results: time.Hour, IDs: time.Hour}
	last := int64(0)
	for i := range 3 {
		seq := finishAt(t, j, testID(i), time.Now(), "", true)
		if seq <= last {
			t.Fatalf("job %d came after job %d", seq, last)
		}
		last = seq
		pruneAll(t, j, later(100), l)
	}
	if n := count(t, j, "job"); n != 1 {
		t.Errorf("%d jobs are remembered, want the newest", n)
	}
}

func TestSizeBound(t *testing.T) {
	j := openTest(t, memoryDir(t))
	defer j.Close()
	now := time.Now()
	text := strings.Repeat("o", 10_000)
	file := strings.Repeat("f", 100_000)
	var want []string
	for i := range 40 {
		output := text
		if i%4 == 3 {
			output = file
		}
		finishAt(t, j, testID(i), now.Add(time.Duration(i-100)*time.Second), output, i != 0)
	}
	running := accept(t, j, testAccept(testID(50)))
	const size = 500_000
	pruneAll(t, j, now, Limits{Size: size})
	if j.kept > size || j.kept < size-110_000 {
		t.Errorf("%d bytes are kept of %d that may be", j.kept, size)
	}
	if j.kept != sumKept(t, j) {
		t.Errorf("%d bytes are counted, %d are kept", j.kept, sumKept(t, j))
	}
	js, err := j.Reader().Newest(t.Context(), 100, cbsdmq.Done, "")
	if err != nil || len(js) != 40 {
		t.Fatalf("%d rows, %v", len(js), err)
	}
	for _, r := range js {
		if r.Plan != nil {
			want = append(want, r.ID)
		}
	}
	// The newest have stayed, and the oldest, because it owes a reply.
	for i, id := range want[:len(want)-1] {
		if id != testID(39-i) {
			t.Fatalf("kept %v", want)
		}
	}
	if last := want[len(want)-1]; last != testID(0) {
		t.Errorf("the job that owes a reply lost its output, before it %s", last)
	}
	if r := get(t, j, running.Seq); r.Plan == nil {
		t.Error("the open job lost its plan")
	}
	// Nothing can be dropped any more: it must come to an end all the same.
	sendAll(t, j)
	pruneAll(t, j, now, Limits{Size: 1})
	if want := int64(len(running.Plan)); j.kept != want {
		t.Errorf("%d bytes are kept, want the %d of the open job", j.kept, want)
	}
}

func TestPruneInSteps(t *testing.T) {
	dir := memoryDir(t)
	j := openTest(t, dir)
	defer func() { j.Close() }()
	const jobs = 2*pruneStep + 100
	var b, f Batch
	for i := range jobs {
		b.Accept = append(b.Accept, testAccept(testID(i)))
		b.Tombstone = append(b.Tombstone, fmt.Sprintf("01K9ZQ6V4T%016d", i))
	}
	commit(t, j, b)
	for _, a := range b.Accept {
		f.Finish = append(f.Finish, done(a.Job.Seq, "text"))
	}
	commit(t, j, f)
	sendAll(t, j)
	j = reopen(t, j, dir)
	l := Limits{Results: time.Hour, IDs: time.Hour}
	more, err := j.Prune(t.Context(), later(100), l)
	if err != nil || !more {
		t.Fatalf("first step: more %v, %v", more, err)
	}
	if n := count(t, j, "tombstone"); n != jobs-pruneStep {
		t.Errorf("one step dropped %d tombstones", jobs-n)
	}
	pruneAll(t, j, later(100), l)
	if jobs, tombs := count(t, j, "job"), count(t, j, "tombstone"); jobs != 1 || tombs != 0 || j.kept != 0 {
		t.Errorf("%d jobs and %d tombstones are left, %d bytes", jobs, tombs, j.kept)
	}
}
