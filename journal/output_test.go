package journal

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
)

func readOutput(t testing.TB, r Reader, seq int64) string {
	t.Helper()
	f, err := r.Output(t.Context(), seq)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Error(err)
	}
	return string(b)
}

func outputFiles(t testing.TB, j *Journal) []string {
	t.Helper()
	files, err := os.ReadDir(outputDir(j.path))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func TestOutput(t *testing.T) {
	j := openTest(t, t.TempDir())
	defer j.Close()
	long := strings.Repeat("o", InlineOutput+1)
	for name, c := range map[string]struct {
		output string
		file   bool
	}{
		"none":    {"", false},
		"short":   {"hello", false},
		"longest": {long[1:], false},
		"in file": {long, true},
		"binary":  {"\x00\xff", false},
	} {
		a := testAccept(name)
		f := done(accept(t, j, a).Seq, c.output)
		if c.file {
			if err := j.SaveOutput(f.Seq, strings.NewReader(c.output)); err != nil {
				t.Fatal(err)
			}
			f.Output = nil
		}
		commit(t, j, Batch{Finish: []*Finish{f}})
		if got := readOutput(t, j.Reader(), f.Seq); got != c.output {
			t.Errorf("%s: %d bytes came back of %d", name, len(got), len(c.output))
		}
	}
	if names := outputFiles(t, j); len(names) != 1 {
		t.Errorf("files: %v", names)
	}
	_, err := j.Reader().Output(t.Context(), 99)
	if cbsdmq.CodeOf(err) != cbsdmq.CodeNotFound {
		t.Errorf("output of no job: %v", err)
	}
}

// An agent was killed between writing the output and committing the end.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	if err := j.Sweep(t.Context()); err != nil {
		t.Fatalf("before there was any output: %v", err)
	}
	long := strings.Repeat("o", InlineOutput+1)
	var seqs []int64
	for i := range 3 {
		a := testAccept(testID(i))
		a.Begin = true
		seqs = append(seqs, accept(t, j, a).Seq)
	}
	for _, seq := range append(seqs, 77) { // 77 belongs to no job
		if err := j.SaveOutput(seq, strings.NewReader(long)); err != nil {
			t.Fatal(err)
		}
	}
	commit(t, j, Batch{Finish: []*Finish{
		{Seq: seqs[0], State: cbsdmq.Done, OutSize: int64(len(long))},
		done(seqs[1], "in its row"),
	}})
	stranger := filepath.Join(outputDir(j.path), "README")
	if err := os.WriteFile(stranger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j = reopen(t, j, dir)
	defer j.Close()
	if err := j.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"1.out", "README"}, outputFiles(t, j)); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	if got := readOutput(t, j.Reader(), seqs[0]); got != long {
		t.Errorf("the output of an ended job has %d bytes", len(got))
	}
	if got := readOutput(t, j.Reader(), seqs[1]); got != "in its row" {
		t.Errorf("got %q", got)
	}
	// The job that was swept ends after all.
	if err := j.SaveOutput(seqs[2], strings.NewReader(long)); err != nil {
		t.Fatal(err)
	}
	commit(t, j, Batch{Finish: []*Finish{{Seq: seqs[2], State: cbsdmq.Done, OutSize: int64(len(long))}}})
	if got := readOutput(t, j.Reader(), seqs[2]); got != long {
		t.Errorf("saved again it has %d bytes", len(got))
	}
}

func TestSaveOutputThatCannotBeRead(t *testing.T) {
	j := openTest(t, t.TempDir())
	defer j.Close()
	seq := accept(t, j, testAccept(testID(1))).Seq
	src := io.MultiReader(bytes.NewReader(make([]byte, 100_000)), failingReader{})
	if err := j.SaveOutput(seq, src); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
	if names := outputFiles(t, j); len(names) != 0 {
		t.Errorf("half of it was left: %v", names)
	}
}

var errBroken = errors.New("broken")

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errBroken }

// Workers save output while the writer commits.
func TestSaveOutputBesideCommits(t *testing.T) {
	j := openTest(t, t.TempDir())
	defer j.Close()
	const n = 16
	var as []*Accept
	for i := range n {
		as = append(as, testAccept(testID(i)))
	}
	commit(t, j, Batch{Accept: as})
	saved := make(chan int64, n)
	for _, a := range as {
		go func() {
			if err := j.SaveOutput(a.Job.Seq, bytes.NewReader(make([]byte, 100_000))); err != nil {
				t.Error(err)
			}
			if _, err := j.Reader().Newest(context.Background(), 5, "", ""); err != nil {
				t.Error(err)
			}
			saved <- a.Job.Seq
		}()
	}
	for range n {
		commit(t, j, Batch{Finish: []*Finish{{Seq: <-saved, State: cbsdmq.Done, OutSize: 100_000}}})
	}
	if want := int64(n * (100_000 + len(`{}`))); j.kept != want {
		t.Errorf("%d bytes are kept, want %d", j.kept, want)
	}
}
