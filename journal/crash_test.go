package journal

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

// Commit number s of the child is a function of s, so that the parent can tell
// from the number of commits what must be in the journal: perCommit jobs are
// accepted, half of them begun at once; one commit later the others begin; two
// commits later they end; three commits later they are answered.
const perCommit = 4

func childSeq(s, k int) int64 { return int64(s*perCommit + k + 1) }

// childOutput is the stdout of job k of a commit: none, short, long, and too
// long for the row.
func childOutput(s, k int) []byte {
	sizes := [perCommit]int{0, 10, 50_000, 100_000}
	return bytes.Repeat([]byte{'a' + byte(s%26)}, sizes[k])
}

func childCommit(j *Journal, s int) error {
	var b Batch
	for k := range perCommit {
		a := testAccept(testID(s*perCommit + k))
		a.Begin = k%2 == 0
		b.Accept = append(b.Accept, a)
	}
	for k := 1; k < perCommit && s >= 1; k += 2 {
		b.Begin = append(b.Begin, &Begin{Seq: childSeq(s-1, k)})
	}
	for k := 0; k < perCommit && s >= 2; k++ {
		out := childOutput(s-2, k)
		f := done(childSeq(s-2, k), string(out))
		if len(out) > InlineOutput {
			if err := j.SaveOutput(f.Seq, bytes.NewReader(out)); err != nil {
				return err
			}
			f.Output = nil
		}
		b.Finish = append(b.Finish, f)
	}
	for k := 0; k < perCommit && s >= 3; k++ {
		b.Sent = append(b.Sent, SentReply{Seq: childSeq(s-3, k), Bus: "mem", Tube: "reply1", State: Sent})
	}
	return j.Commit(&b)
}

func writeUntilKilled() error {
	o := testOptions(os.Getenv("JOURNAL_TEST_DIR"))
	o.Mode, o.Reserve = os.Getenv("JOURNAL_TEST_MODE"), 1<<16
	j, err := Open(context.Background(), o)
	if err != nil {
		return err
	}
	if p := j.Past(); p != nil {
		return errors.New(p.String())
	}
	if err := j.Sweep(context.Background()); err != nil {
		return err
	}
	for s := int(j.Meta().Commits); ; s++ {
		if err := childCommit(j, s); err != nil {
			return err
		}
		fmt.Println(s + 1)
		if s%8 == 0 {
			if err := j.SaveMark(); err != nil {
				return err
			}
		}
	}
}

func childCommand(t testing.TB, role, dir string, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(append(os.Environ(), "JOURNAL_TEST_CHILD="+role, "JOURNAL_TEST_DIR="+dir), env...)
	return cmd
}

func TestKilledWriter(t *testing.T) {
	for mode, rounds := range map[string]int{"wal": 20, "delete": 6} {
		t.Run(mode, func(t *testing.T) {
			if testing.Short() {
				rounds = 3
			}
			dir := t.TempDir()
			confirmed, killed := 0, 0
			for round := range rounds {
				n, wrote := runAndKill(t, dir, mode, round%2 == 0)
				confirmed = max(confirmed, n)
				if wrote {
					killed++
				}
				// What one reader has seen must be there for the next.
				confirmed = verifyCrash(t, dir, mode, confirmed)
			}
			t.Logf("%d commits confirmed, %d of %d writers killed after their first commit", confirmed, killed, rounds)
			if killed == 0 {
				t.Error("no writer was killed at work: nothing was shown")
			}
		})
	}
}

// runAndKill lets a child write for a while, counted from its start or from its
// first commit, and kills it. It returns the number of the last commit that the
// child said was written, and whether there was one.
func runAndKill(t *testing.T, dir, mode string, fromStart bool) (confirmed int, wrote bool) {
	t.Helper()
	cmd := childCommand(t, "write", dir, "JOURNAL_TEST_MODE="+mode)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { cmd.Process.Kill() }
	after := time.Duration(rand.IntN(100)) * time.Millisecond
	if fromStart {
		defer time.AfterFunc(after, kill).Stop()
	}
	for lines := bufio.NewScanner(out); lines.Scan(); wrote = true {
		if !wrote && !fromStart {
			defer time.AfterFunc(after, kill).Stop()
		}
		if _, err := fmt.Sscan(lines.Text(), &confirmed); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait() // killed
	if stderr.Len() > 0 {
		t.Fatalf("the writer failed by itself: %s", stderr.String())
	}
	return confirmed, wrote
}

// verifyCrash looks at what a killed writer left, first as a reader does while
// no agent is there, then as the next agent. It returns how many commits it
// found.
func verifyCrash(t *testing.T, dir, mode string, confirmed int) int {
	t.Helper()
	o := testOptions(dir)
	o.Mode = mode
	if db, err := OpenReader(o.Path); err == nil {
		var commits int
		if err := db.QueryRowContext(t.Context(), "SELECT commits FROM meta").Scan(&commits); err != nil {
			t.Fatal(err)
		}
		verifyCommits(t, NewReader(db, o.Path), commits, confirmed)
		confirmed = commits
		db.Close()
	} else if cbsdmq.CodeOf(err) != cbsdmq.CodeNotFound { // nothing was made yet
		t.Fatalf("a reader cannot open it: %v", err)
	}
	j, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if j.Past() != nil {
		t.Fatalf("a crash is taken for a rollback: %v", j.Past())
	}
	if err := j.Reader().Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := j.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	commits := int(j.Meta().Commits)
	verifyCommits(t, j.Reader(), commits, confirmed)
	if want := uint64(max(0, perCommit*commits-perCommit/2)); j.Meta().N != want {
		t.Errorf("%d begins were numbered after %d commits, want %d", j.Meta().N, commits, want)
	}
	return commits
}

// verifyCommits checks that all of the commits are there, none in part.
func verifyCommits(t *testing.T, r Reader, commits, confirmed int) {
	t.Helper()
	if commits < confirmed || commits > confirmed+1 {
		t.Fatalf("%d commits were confirmed, the journal has %d", confirmed, commits)
	}
	all, err := r.jobs(t.Context(), "ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != commits*perCommit {
		t.Fatalf("%d jobs after %d commits", len(all), commits)
	}
	for i, row := range all {
		s, k := i/perCommit, i%perCommit
		want := cbsdmq.Queued
		switch {
		case s+2 < commits:
			want = cbsdmq.Done
		case s+1 < commits || k%2 == 0:
			want = cbsdmq.Running
		}
		if row.Seq != childSeq(s, k) || row.ID != testID(i) || row.State != want || (row.N > 0) != (want != cbsdmq.Queued) {
			t.Fatalf("after %d commits job %d is %+v, want state %s", commits, i, row, want)
		}
		if s < commits-10 {
			continue // looked at in an earlier round
		}
		as, err := r.Addresses(t.Context(), row.Seq)
		if err != nil || len(as) != 1 || as[0].Sent.IsZero() != (s+3 >= commits) {
			t.Fatalf("after %d commits the addresses of job %d are %+v, %v", commits, i, as, err)
		}
		if want != cbsdmq.Done {
			continue
		}
		f, err := r.Output(t.Context(), row.Seq)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || !bytes.Equal(got, childOutput(s, k)) {
			t.Fatalf("output of job %d has %d bytes, want %d, %v", i, len(got), row.OutSize, err)
		}
	}
}

func holdUntilKilled() error {
	j, err := Open(context.Background(), testOptions(os.Getenv("JOURNAL_TEST_DIR")))
	if err != nil {
		return err
	}
	defer j.Close()
	fmt.Println("open")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
