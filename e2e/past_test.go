package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// journalDir is where the journal lies.
func (w *world) journalDir() string { return filepath.Join(w.pool, "var", "db", "cbsdmq") }

// list is what `cbsdmq jobs` says.
func (w *world) list(args ...string) (jobs []cbsdmq.JobInfo) {
	w.t.Helper()
	end := w.cbsdmq(append([]string{"jobs", "--config", w.file, "-o", "json"}, args...)...)
	if end.status != 0 {
		w.t.Fatalf("jobs ends with %d: %s", end.status, end.stderr)
	}
	for line := range strings.Lines(end.stdout) {
		var j cbsdmq.JobInfo
		if err := json.Unmarshal([]byte(line), &j); err != nil {
			w.t.Fatalf("%q: %v", line, err)
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// TestJournalOfYesterday puts back the journal as it was when jobs waited that
// have run since, as a rollback of the pool does. They are held, not run again,
// until a person decides; new jobs go on.
func TestJournalOfYesterday(t *testing.T) {
	for _, decision := range []string{"drop", "release"} {
		t.Run(decision, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, beanstalkd(t))
			w.guest("vm1", "vm2")
			letGo := w.hold("bset")
			a := w.agent("")
			var ids []string
			for _, tag := range []string{"a", "b", "c"} {
				ids = append(ids, w.submit(job("bset", "jname=vm1", "tags="+tag)))
			}
			w.begun(1)
			testserver.Eventually(t, patience, func() error {
				if jobs, err := w.connect().Jobs(t.Context(), 10, cbsdmq.Queued); len(jobs) != 2 {
					return fmt.Errorf("%d jobs wait: %w", len(jobs), err)
				}
				return nil
			})
			a.kill()
			yesterday := filepath.Join(w.dir, "yesterday")
			if err := os.CopyFS(yesterday, os.DirFS(w.journalDir())); err != nil {
				t.Fatal(err)
			}
			letGo()
			a = w.agent("")
			w.judge(w.ends(ids), false)
			a.signal(syscall.SIGTERM)
			a.ends(t)
			if err := os.RemoveAll(w.journalDir()); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(w.journalDir(), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(w.journalDir(), os.DirFS(yesterday)); err != nil {
				t.Fatal(err)
			}

			w.agent("")
			w.logged("2 queued jobs held: journal is from ")
			if r := w.follow(w.submit(job("bset", "jname=vm2", "tags=new"))); r.State != cbsdmq.Done {
				t.Errorf("a new job ended %s: %s", r.State, r.Reason)
			}
			var held []string
			for _, j := range w.list("--state", "held") {
				held = append(held, j.ID)
			}
			slices.Sort(held)
			if want := slices.Sorted(slices.Values(ids[1:])); !slices.Equal(held, want) {
				t.Errorf("held: %q, want %q", held, want)
			}
			if n := len(w.order("vm1")); n != 3 {
				t.Errorf("%d commands on vm1, 3 jobs", n)
			}
			if end := w.cbsdmq("held", decision, "--config", w.file); end.status != 0 || !strings.HasPrefix(end.stdout, "2 jobs ") {
				t.Errorf("held %s ends with %d: %s%s", decision, end.status, end.stdout, end.stderr)
			}
			want, runs := cbsdmq.Cancelled, 3
			if decision == "release" {
				want, runs = cbsdmq.Done, 5
			}
			for _, id := range ids[1:] {
				if end := w.cbsdmq("follow", "--config", w.file, "-o", "json", id); !strings.Contains(end.stdout, string(want)) {
					t.Errorf("%s ended with %d, want %s: %s%s", id, end.status, want, end.stdout, end.stderr)
				}
			}
			if n := len(w.order("vm1")); n != runs {
				t.Errorf("%d commands on vm1 after %s, want %d", n, decision, runs)
			}
		})
	}
}
