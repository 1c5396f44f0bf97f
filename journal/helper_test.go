package journal

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("JOURNAL_TEST_CHILD"); role != "" {
		if err := children[role](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if testing.Short() {
		if err := flag.Set("rapid.checks", "20"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// children are what this binary does when it is started as a child process.
var children = map[string]func() error{
	"write": writeUntilKilled,
	"hold":  holdUntilKilled,

	"migrate": migrateUntilKilled,
}

// memory is a parent for the directories of tests that open many journals and
// do not care for the disk; "" is the usual one.
func memory() string {
	const shm = "/dev/shm"
	if fi, err := os.Stat(shm); err == nil && fi.IsDir() {
		return shm
	}
	return ""
}

// memoryDir is as t.TempDir, in memory where that is possible.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(memory(), "journal-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func testOptions(dir string) Options {
	return Options{
		Path: filepath.Join(dir, "pool", "journal.sqlite"), State: filepath.Join(dir, "state"),
		Host: "host1", Boot: "boot1", Reserve: -1,
	}
}

func openTest(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(t.Context(), testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// reopen closes j and opens its journal again.
func reopen(t testing.TB, j *Journal, dir string) *Journal {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return openTest(t, dir)
}

func commit(t testing.TB, j *Journal, b Batch) {
	t.Helper()
	if err := j.Commit(&b); err != nil {
		t.Fatal(err)
	}
}

// testID is the nth id of a series, shaped like a ULID.
func testID(n int) string { return fmt.Sprintf("01K9ZQ6V4S%016d", n) }

func testAccept(id string) *Accept {
	return &Accept{
		Job:     &Job{ID: id, Ident: id, Bus: "mem", Command: "jstart", Guest: "jail1", Plan: []byte(`{}`), Accepted: time.Now()},
		Address: Address{Bus: "mem", Tube: "reply1"},
	}
}

func legacyAccept(number int, ident string) *Accept {
	a := testAccept(fmt.Sprint(number))
	a.Job.Ident, a.Job.Flags = ident, Legacy
	a.Address = Address{Bus: "mem", Tube: fmt.Sprint("reply", number), BrokerID: true}
	return a
}

// accept writes down one job and returns its row.
func accept(t testing.TB, j *Journal, a *Accept) *Job {
	t.Helper()
	commit(t, j, Batch{Accept: []*Accept{a}})
	if a.Known != nil {
		t.Fatalf("%s was known as %s", a.Job.ID, a.Known.ID)
	}
	return get(t, j, a.Job.Seq)
}

func done(seq int64, output string) *Finish {
	return &Finish{Seq: seq, State: cbsdmq.Done, Result: []byte(`{"ErrCode":0}`), Output: []byte(output), OutSize: int64(len(output))}
}

func get(t testing.TB, j *Journal, seq int64) *Job {
	t.Helper()
	r, err := j.Reader().BySeq(t.Context(), seq)
	if err != nil || r == nil {
		t.Fatalf("job %d: %v, %v", seq, r, err)
	}
	return r
}

// sendAll notes every owed reply as sent.
func sendAll(t testing.TB, j *Journal) {
	t.Helper()
	owed, err := j.Reader().Owed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	for _, o := range owed {
		b.Sent = append(b.Sent, SentReply{Seq: o.Seq, Bus: o.Address.Bus, Tube: o.Address.Tube, State: Sent})
	}
	commit(t, j, b)
}

// wantHint checks that err tells a person what to do.
func wantHint(t testing.TB, err error, code cbsdmq.Code, hint string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if got := cbsdmq.CodeOf(err); got != code {
		t.Errorf("%v: code %q, want %q", err, got, code)
	}
	if got := cbsdmq.HintOf(err); got == "" || !strings.Contains(got, hint) {
		t.Errorf("%v: hint %q, want one with %q", err, got, hint)
	}
}

// copyFiles copies the files of a directory, not what lies deeper.
func copyFiles(t testing.TB, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// rollBack puts the files of the journal in dir back to what saved has. The
// journal must be closed.
func rollBack(t testing.TB, saved, dir string) {
	t.Helper()
	pool := filepath.Join(dir, "pool")
	if err := os.RemoveAll(pool); err != nil {
		t.Fatal(err)
	}
	copyFiles(t, saved, pool)
}

func ids(js []*Job) []string {
	var s []string
	for _, j := range js {
		s = append(s, j.ID)
	}
	slices.Sort(s)
	return s
}

func openJobs(t testing.TB, j *Journal) []*Job {
	t.Helper()
	js, err := j.Reader().Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// later is a time some hours after now.
func later(hours int) time.Time { return time.Now().Add(time.Duration(hours) * time.Hour) }
