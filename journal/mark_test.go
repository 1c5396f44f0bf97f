package journal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
)

// yesterday is a journal with a queued, a begun, a cancelled and an ended job,
// closed, and a copy of its files in saved. Afterwards the journal went on:
// everything in it ended, and two more jobs were begun.
func yesterday(t *testing.T) (dir, saved string) {
	t.Helper()
	dir, saved = t.TempDir(), t.TempDir()
	j := openTest(t, dir)
	var as []*Accept
	for i := range 4 {
		a := testAccept(testID(i))
		a.Begin = i == 1 || i == 3
		as = append(as, a)
	}
	commit(t, j, Batch{Accept: as})
	commit(t, j, Batch{Finish: []*Finish{done(as[3].Job.Seq, "")}, Cancel: []int64{as[2].Job.Seq}})
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	copyFiles(t, filepath.Join(dir, "pool"), saved)

	j = openTest(t, dir)
	var b Batch
	for i := range 3 {
		b.Finish = append(b.Finish, done(as[i].Job.Seq, ""))
	}
	commit(t, j, b)
	for i := range 2 {
		a := testAccept(testID(10 + i))
		a.Begin = true
		accept(t, j, a)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, saved
}

func states(t *testing.T, j *Journal) map[string]cbsdmq.State {
	t.Helper()
	js, err := j.Reader().Newest(t.Context(), 100, "", "")
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]cbsdmq.State)
	for _, r := range js {
		m[r.ID] = r.State
	}
	return m
}

func TestRollback(t *testing.T) {
	dir, saved := yesterday(t)
	rollBack(t, saved, dir)
	j := openTest(t, dir)
	defer func() { j.Close() }()
	past := j.Past()
	if past == nil || past.Held != 2 || past.OtherHost || past.Lost || !past.JournalAt.Before(past.SeenAt) {
		t.Fatalf("after a rollback: %+v", past)
	}
	if got := past.String(); !strings.Contains(got, "2 queued jobs held: journal is from ") {
		t.Error(got)
	}
	want := map[string]cbsdmq.State{
		testID(0): cbsdmq.Held, testID(1): cbsdmq.Running, testID(2): cbsdmq.Held, testID(3): cbsdmq.Done,
	}
	if d := cmp.Diff(want, states(t, j)); d != "" {
		t.Errorf("jobs (-want +got):\n%s", d)
	}
	if m := j.Meta(); m.Generation != 2 || m.N != 4 {
		t.Errorf("meta %+v, want generation 2 and begins above 4", m)
	}

	// What is held does not begin; a new job does, above every number seen.
	seq := get(t, j, 1).Seq
	g := &Begin{Seq: seq}
	a := testAccept(testID(20))
	a.Begin = true
	commit(t, j, Batch{Accept: []*Accept{a}, Begin: []*Begin{g}})
	if g.N != 0 || a.Job.N != 5 {
		t.Errorf("a held job began with %d, a new one with %d, want 0 and 5", g.N, a.Job.N)
	}

	// It is known to the next agent as long as something is held, and not taken
	// for another rollback.
	j = reopen(t, j, dir)
	if p := j.Past(); p == nil || p.Held != 2 || micro(p.SeenAt) != micro(past.SeenAt) || micro(p.JournalAt) != micro(past.JournalAt) || j.Meta().Generation != 2 {
		t.Errorf("after a restart: %+v, meta %+v", p, j.Meta())
	}
	commit(t, j, Batch{Release: []int64{seq}, Finish: []*Finish{{Seq: 3, State: cbsdmq.Cancelled}}})
	if r := get(t, j, seq); r.State != cbsdmq.Queued {
		t.Errorf("released as %s", r.State)
	}
	j = reopen(t, j, dir)
	if j.Past() != nil {
		t.Errorf("nothing is held any more: %v", j.Past())
	}
}

// Only the database is put back, and the log of today lies beside it.
func TestRollbackUnderLog(t *testing.T) {
	dir, saved := yesterday(t)
	j := openTest(t, dir)
	for i := range 20 {
		accept(t, j, testAccept(testID(100+i)))
	}
	if err := j.SaveMark(); err != nil {
		t.Fatal(err)
	}
	today := t.TempDir()
	copyFiles(t, filepath.Join(dir, "pool"), today)
	j.Close()
	rollBack(t, today, dir)
	b, err := os.ReadFile(filepath.Join(saved, "journal.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(testOptions(dir).Path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	j, err = Open(t.Context(), testOptions(dir))
	if err != nil {
		wantHint(t, err, cbsdmq.CodeUnavailable, "integrity_check")
		return
	}
	defer j.Close()
	// The log happened to hold all pages that differ.
	if err := j.Reader().Check(t.Context()); err != nil {
		t.Error(err)
	}
	if n := len(states(t, j)); n != 26 && j.Past() == nil {
		t.Errorf("%d jobs, and nobody noticed", n)
	}
}

func TestOtherHost(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, o *Options){
		"another host's state directory": func(t *testing.T, o *Options) { o.State = t.TempDir() },
		"no state directory": func(t *testing.T, o *Options) {
			if err := os.RemoveAll(o.State); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, saved := yesterday(t)
			rollBack(t, saved, dir)
			o := testOptions(dir)
			lose(t, &o)
			j, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { j.Close() }()
			past := j.Past()
			if past == nil || !past.OtherHost || past.Held != 2 || past.JournalAt.IsZero() || !past.SeenAt.IsZero() {
				t.Fatalf("got %+v", past)
			}
			if got := past.String(); !strings.HasPrefix(got, "2 queued jobs held: ") || !strings.Contains(got, "another host") {
				t.Error(got)
			}
			if got := (&Past{OtherHost: true}).String(); !strings.HasPrefix(got, "no jobs were queued: ") {
				t.Error(got)
			}
			// This host's runner must not take the other's numbers for begins
			// that never reached it.
			if r := get(t, j, 2); r.State != cbsdmq.Running || r.N != 0 || r.Epoch != 0 || r.Host != "host1" {
				t.Errorf("the begun job is %+v", r)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			if j, err = Open(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if p := j.Past(); p == nil || !p.OtherHost || p.Held != 2 || j.Meta().Generation != 2 {
				t.Errorf("after a restart: %+v, %+v", p, j.Meta())
			}
		})
	}
}

func TestLostJournal(t *testing.T) {
	for name, lose := range map[string]func(path string) error{
		"removed": func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"emptied": func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dir, _ := yesterday(t)
			o := testOptions(dir)
			if err := lose(o.Path); err != nil {
				t.Fatal(err)
			}
			j := openTest(t, dir)
			defer func() { j.Close() }()
			past := j.Past()
			if past == nil || !past.Lost || past.SeenAt.IsZero() || !strings.Contains(past.String(), "forgotten") {
				t.Fatalf("a lost journal was silently begun anew: %+v", past)
			}
			a := testAccept(testID(0))
			a.Begin = true
			accept(t, j, a)
			j = reopen(t, j, dir)
			if j.Past() != nil {
				t.Errorf("the new journal is from the past: %v", j.Past())
			}
		})
	}
}

func TestMarks(t *testing.T) {
	m := Meta{Generation: 3, N: 10, Commits: 100}
	for name, c := range map[string]struct {
		seen  mark
		newer bool
	}{
		"none":             {mark{}, false},
		"same":             {mark{Generation: 3, N: 10, Commits: 100}, false},
		"older":            {mark{Generation: 3, N: 9, Commits: 90}, false},
		"begins":           {mark{Generation: 3, N: 11, Commits: 100}, true},
		"commits":          {mark{Generation: 3, N: 10, Commits: 101}, true},
		"older generation": {mark{Generation: 2, N: 99, Commits: 999}, false},
		"newer generation": {mark{Generation: 4, N: 1, Commits: 1}, true},
	} {
		if got := c.seen.newer(m); got != c.newer {
			t.Errorf("%s: newer %v, want %v", name, got, c.newer)
		}
	}
}

// Half a mark is not written by us (it is replaced as a whole). It is taken for
// none: the runner has its own.
func TestBrokenMark(t *testing.T) {
	for _, text := range []string{"", "{", `{"generation":1,"n":4,"commi`, "\x00\x00", `{"n":-1}`} {
		dir, saved := yesterday(t)
		j := openTest(t, dir)
		name := markPath(testOptions(dir).State, j.Meta().Pool)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		rollBack(t, saved, dir)
		j = openTest(t, dir)
		if j.Past() != nil {
			t.Errorf("%q: %v", text, j.Past())
		}
		// The runner accepted begin 4, this journal knows of 2.
		if err := j.CheckMark(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		if p := j.Past(); p == nil || p.Held != 2 {
			t.Errorf("%q: the runner's mark shows %+v", text, p)
		}
		j.Close()
	}
}

func TestCheckMark(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	defer func() { j.Close() }()
	a, b := testAccept(testID(1)), testAccept(testID(2))
	a.Begin = true
	commit(t, j, Batch{Accept: []*Accept{a, b}})
	for _, n := range []uint64{0, 1} {
		if err := j.CheckMark(t.Context(), n); err != nil || j.Past() != nil || j.Meta().Generation != 1 {
			t.Fatalf("the runner's mark is %d: %v, %v", n, err, j.Past())
		}
	}
	if err := j.CheckMark(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if p := j.Past(); p == nil || p.Held != 1 || j.Meta().N != 7 || j.Meta().Generation != 2 {
		t.Fatalf("%+v, %+v", p, j.Meta())
	}
	c := testAccept(testID(3))
	c.Begin = true
	accept(t, j, c)
	if c.Job.N != 8 {
		t.Errorf("the next begin has n %d, want 8", c.Job.N)
	}
	j = reopen(t, j, dir)
	if err := j.CheckMark(t.Context(), 8); err != nil || j.Meta().Generation != 2 {
		t.Errorf("%v, %+v", err, j.Meta())
	}
}

// A rollback that cannot be written down is not half taken into account.
func TestCheckMarkOnFullDisk(t *testing.T) {
	j := openTest(t, t.TempDir())
	defer j.Close()
	accept(t, j, testAccept(testID(1)))
	before := j.Meta()
	if _, err := j.write.ExecContext(t.Context(), "PRAGMA query_only = 1"); err != nil {
		t.Fatal(err)
	}
	if err := j.CheckMark(t.Context(), 7); err == nil {
		t.Fatal("it was written")
	}
	if j.Meta() != before || j.Past() != nil {
		t.Errorf("meta %+v, past %v", j.Meta(), j.Past())
	}
}

func TestCopyOnTheSameHost(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	accept(t, j, testAccept(testID(1)))
	pool := filepath.Join(dir, "pool")
	copied := filepath.Join(dir, "pool2")
	o := testOptions(dir)
	o.Path = filepath.Join(copied, "journal.sqlite")
	for _, running := range []bool{true, false} {
		if !running {
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.RemoveAll(copied); err != nil {
			t.Fatal(err)
		}
		copyFiles(t, pool, copied)
		_, err := Open(t.Context(), o)
		wantHint(t, err, cbsdmq.CodeBadConfig, "move")
		if !strings.Contains(err.Error(), "copy of "+filepath.Join(pool, "journal.sqlite")) {
			t.Error(err)
		}
	}
	// The pool was renamed, and there is another one now where it was.
	if err := os.RemoveAll(copied); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(pool, copied); err != nil {
		t.Fatal(err)
	}
	other := openTest(t, dir)
	if other.Past() == nil || !other.Past().Lost {
		t.Errorf("another journal in its place: %+v", other.Past())
	}
	accept(t, other, testAccept(testID(1)))
	defer other.Close()
	j, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("a renamed pool: %v", err)
	}
	defer j.Close()
	if j.Past() != nil || len(openJobs(t, j)) != 1 || j.Meta().Pool == other.Meta().Pool {
		t.Errorf("a renamed pool: %+v, %+v", j.Past(), j.Meta())
	}
}

// Agents of several pools may name their host at the same time.
func TestHostID(t *testing.T) {
	const rounds, agents = 20, 8
	for range rounds {
		state := memoryDir(t)
		got := make(chan string, agents)
		for range agents {
			go func() {
				id, err := hostID(state)
				if err != nil {
					t.Error(err)
				}
				got <- id
			}()
		}
		first := <-got
		for range agents - 1 {
			if id := <-got; id != first || len(id) != 32 {
				t.Errorf("this host is called %s and %s", first, id)
			}
		}
		files, err := os.ReadDir(state)
		if err != nil || len(files) != 1 {
			t.Errorf("left in the state directory: %v, %v", files, err)
		}
	}
}

func TestSaveMark(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	defer j.Close()
	name := markPath(testOptions(dir).State, j.Meta().Pool)
	read := func() os.FileInfo { // another file each time that it is written
		t.Helper()
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return fi
	}
	first := read()
	if err := j.SaveMark(); err != nil || !os.SameFile(read(), first) {
		t.Errorf("an idle journal writes its mark: %v", err)
	}
	accept(t, j, testAccept(testID(1)))
	if err := j.SaveMark(); err != nil || os.SameFile(read(), first) {
		t.Errorf("the mark was not written: %v", err)
	}
	seen, err := readMark(testOptions(dir).State, j.Meta().Pool)
	if err != nil || seen.newer(j.Meta()) || seen.Commits != 1 || seen.Path != j.path {
		t.Errorf("mark %+v, %v", seen, err)
	}
}
