package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
)

const canary = "CANARY-pa55word"

// leaks lists the files below dir that hold the canary.
func leaks(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(canary)) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// When a job has ended its secrets are in no file any more: also where its plan
// was long, and where its row was moved.
func TestSecretsOfEndedJobs(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{Path: filepath.Join(dir, "pool", "journal.sqlite"), State: filepath.Join(dir, "state"), Host: "h", Boot: "b", Mode: mode}
			j, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { j.Close() }()
			var seqs []int64
			kept := make([]string, 0, 60)
			for i := range 60 {
				plan := `{"argv":["bcreate","ci_user_pw_root=` + canary + `"]}`
				if i%7 == 0 {
					plan = strings.Replace(plan, canary, strings.Repeat(canary+" ", 2000), 1) // does not fit into a page
				}
				a := &Accept{Job: &Job{ID: anID(t), Command: "bcreate", Plan: []byte(plan)}, Address: Address{Bus: "mem", Tube: "t"}}
				a.Job.Ident = a.Job.ID
				if err := j.Commit(&Batch{Accept: []*Accept{a}}); err != nil {
					t.Fatal(err)
				}
				seqs = append(seqs, a.Job.Seq)
				kept = append(kept, `{"argv":["bcreate","ci_user_pw_root=***"]}`)
			}
			if len(leaks(t, dir)) == 0 {
				t.Fatal("the secrets of jobs that have not ended are not kept")
			}
			for i, seq := range seqs { // the rows grow at their ends
				f := &Finish{Seq: seq, State: cbsdmq.Done, Result: []byte("{}"), Output: bytes.Repeat([]byte("x"), 50*i), OutSize: int64(50 * i), Plan: []byte(kept[i])}
				if err := j.Commit(&Batch{Finish: []*Finish{f}}); err != nil {
					t.Fatal(err)
				}
			}
			size := j.kept
			if err := j.countKept(t.Context()); err != nil || j.kept != size {
				t.Errorf("kept are %d bytes, counted %d: %v", j.kept, size, err)
			}
			for i, seq := range seqs {
				row, err := j.Reader().BySeq(t.Context(), seq)
				if err != nil || string(row.Plan) != kept[i] {
					t.Fatalf("%s, %v", row.Plan, err)
				}
			}
			if err := j.Scrub(); err != nil {
				t.Fatal(err)
			}
			if found := leaks(t, dir); len(found) > 0 {
				t.Errorf("left in %v", found)
			}
			// An end that comes late changes nothing.
			late := &Finish{Seq: seqs[0], State: cbsdmq.Failed, Plan: []byte("{}")}
			if err := j.Commit(&Batch{Finish: []*Finish{late}}); err != nil || !late.Late {
				t.Errorf("%+v, %v", late, err)
			}
			if row, err := j.Reader().BySeq(t.Context(), seqs[0]); err != nil || string(row.Plan) != kept[0] {
				t.Errorf("%s, %v", row.Plan, err)
			}
		})
	}
}

// A reader in the middle of something is not waited for.
func TestScrubBesideReader(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(t.Context(), Options{Path: filepath.Join(dir, "journal.sqlite"), State: dir, Host: "h", Boot: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	a := &Accept{Job: &Job{ID: anID(t), Command: "bset", Plan: []byte(canary)}, Address: Address{Bus: "mem", Tube: "t"}}
	a.Job.Ident = a.Job.ID
	if err := j.Commit(&Batch{Accept: []*Accept{a}}); err != nil {
		t.Fatal(err)
	}
	rows, err := j.read.QueryContext(t.Context(), "SELECT seq FROM job")
	if err != nil || !rows.Next() {
		t.Fatal(err)
	}
	if err := j.Commit(&Batch{Finish: []*Finish{{Seq: a.Job.Seq, State: cbsdmq.Done, Plan: []byte("{}")}}}); err != nil {
		t.Fatal(err)
	}
	if err := j.Scrub(); err != nil {
		t.Fatal(err)
	}
	if !j.unscrubbed {
		t.Error("scrubbed under a reader")
	}
	if err := errors.Join(rows.Close(), rows.Err()); err != nil {
		t.Fatal(err)
	}
	if err := j.Scrub(); err != nil || j.unscrubbed {
		t.Fatalf("not scrubbed: %v", err)
	}
	if found := leaks(t, dir); len(found) > 0 {
		t.Errorf("left in %v", found)
	}
}

var made int

// anID is an id that no job has yet.
func anID(t *testing.T) string {
	t.Helper()
	made++
	return fmt.Sprintf("01K9ZQ6V4S8H2M0W3C5D7E%04d", made)
}
