package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// checkPattern checks that a file written by actWriter holds its lines at their
// places, but for what was dropped.
func checkPattern(t *testing.T, f File) {
	t.Helper()
	b, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) < f.Size {
		t.Fatalf("the file has %d bytes, not %d", len(b), f.Size)
	}
	var want [16]byte
	for at := int64(0); at+16 <= f.Size; at += 16 {
		patternLine(&want, at)
		if OutputHead <= at && at < OutputHead+f.Dropped {
			want = [16]byte{}
		}
		if line := b[at : at+16]; !bytes.Equal(line, want[:]) {
			t.Fatalf("at %d of %+v the file has %q, not %q", at, f, line, want)
		}
	}
}

// onDisk returns the space that a file takes.
func onDisk(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func (s *site) writer(n uint64, dir string, limit int64, until ...int) Start {
	st := s.shell("p1", n, "")
	st.Path, st.Args, st.Dir, st.OutputMax = os.Args[0], nil, dir, limit
	st.Env = []string{actAs + "=writer"}
	for _, u := range until {
		st.Args = append(st.Args, strconv.Itoa(u))
	}
	return st
}

func release(t *testing.T, dir string, at int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(at)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// 50 MB of output leave the runner as small as it was, and the file within its
// limit, with beginning and end.
func TestLargeOutput(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	dir := t.TempDir()
	const mb = 1 << 20
	release(t, dir, 50*mb)

	before := s.memory(t)
	st := s.writer(1, dir, 2*mb, 10*mb, 20*mb, 50*mb)
	a.run(st)
	a.until(st.Key, Started)
	for _, at := range []int{10 * mb, 20 * mb} {
		eventually(t, "the output is trimmed while the command runs", func() bool {
			out, _, err := a.Output(t.Context(), st.Key)
			if err != nil {
				t.Fatal(err)
			}
			return out.Size == int64(at) && out.Size-out.Dropped <= 2*mb && onDisk(t, out.Path) <= 2*mb+trimAlign
		})
		out, _, err := a.Output(t.Context(), st.Key)
		if err != nil {
			t.Fatal(err)
		}
		checkPattern(t, out)
		release(t, dir, at)
	}
	e := a.until(st.Key, Exited)
	if e.Out.Size != 50*mb || e.Out.Size-e.Out.Dropped > 2*mb || e.Out.Size-e.Out.Dropped < mb || e.Err.Size != 0 {
		t.Errorf("ended with %+v", e.Out)
	}
	checkPattern(t, e.Out)
	if n := onDisk(t, e.Out.Path); n > 2*mb+trimAlign {
		t.Errorf("the file takes %d bytes on disk", n)
	}
	if grown := s.memory(t) - before; grown > 8*mb {
		t.Errorf("the runner has grown by %d bytes", grown)
	}
	a.ack(st.Key)
	eventually(t, "the space is given back", func() bool { return onDisk(t, e.Out.Path) == 0 })
}

// memory returns the runner's resident memory in bytes, 0 where that cannot be
// known.
func (s *site) memory(t *testing.T) int64 {
	if runtime.GOOS != "linux" {
		return 0
	}
	return s.rss()
}

// The output of an orphan is bounded too, and what was dropped is remembered.
func TestLargeOutputOfOrphan(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	dir := t.TempDir()
	const mb = 1 << 20
	st := s.writer(1, dir, mb, 5*mb, 9*mb)
	a.run(st)
	trimmedAt := func(at int64) func() bool {
		return func() bool {
			out, _, err := a.Output(t.Context(), st.Key)
			return err == nil && out.Size == at && out.Size-out.Dropped <= mb && onDisk(t, out.Path) <= mb+trimAlign
		}
	}
	eventually(t, "the output is trimmed", trimmedAt(5*mb))
	s.restart()
	a = s.agent("p1")
	if !trimmedAt(5 * mb)() {
		t.Error("the next runner does not know what was dropped")
	}
	release(t, dir, 5*mb)
	eventually(t, "the output of the orphan is trimmed", trimmedAt(9*mb))
	release(t, dir, 9*mb)
	checkPattern(t, a.until(st.Key, Lost).Out)
}

// A daemon that a command leaves behind does not delay its end, and what it
// writes later reaches nobody's output.
func TestDaemonKeepsOutput(t *testing.T) {
	daemons := map[string]string{
		"inherited": `(while :; do echo late; echo late >&2; done) & echo done`,
	}
	if runtime.GOOS == "linux" {
		// There this opens the file anew.
		daemons["opened"] = `(while :; do echo late; done) >>/dev/stdout & echo done`
	}
	for name, script := range daemons {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			a := s.agent("p1")
			st := s.shell("p1", 1, script)
			a.run(st)
			e := a.until(st.Key, Exited)
			if !strings.Contains(content(t, e.Out), "done\n") {
				t.Errorf("output %q", content(t, e.Out))
			}
			eventually(t, "the daemon writes", func() bool { return sizeAt(e.Out.Path) > e.Out.Size })
			a.ack(st.Key)

			for n := uint64(2); n < 15; n++ {
				next := s.shell("p1", n, "sleep 0.01; echo own; echo own >&2")
				a.run(next)
				end := a.until(next.Key, Exited)
				if out, err := content(t, end.Out), content(t, end.Err); out != "own\n" || err != "own\n" {
					t.Fatalf("run %d has output %.40q and %.40q", n, out, err)
				}
				if end.Out.Path == e.Out.Path {
					t.Fatalf("run %d writes to the file that the daemon has open", n)
				}
				a.ack(next.Key)
			}
			eventually(t, "the daemon's file is emptied", func() bool { return sizeAt(e.Out.Path) < heldForTest })

			for _, p := range jobProcesses(t, st.Job) {
				syscall.Kill(p.PID, syscall.SIGKILL)
			}
			n := uint64(100)
			eventually(t, "the file is removed or used again", func() bool {
				n++
				next := s.shell("p1", n, "exit 0")
				a.run(next)
				end := a.until(next.Key, Exited)
				a.ack(next.Key)
				_, err := os.Stat(e.Out.Path)
				return errors.Is(err, fs.ErrNotExist) || end.Out.Path == e.Out.Path
			})
		})
	}
}

// heldForTest is less than a busy daemon writes between two looks at its file.
const heldForTest = 256 << 10

// What a daemon writes after the end is taken away while the output is still
// needed.
func TestLateOutputIsBounded(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	path, open := gate(t)
	written := filepath.Join(t.TempDir(), "written")
	st := s.shell("p1", 1, fmt.Sprintf("(exec 3<%s; head -c 20000000 /dev/zero; : >%s; sleep 1000) & echo done", path, written))
	a.run(st)
	e := a.until(st.Key, Exited)
	open()
	eventually(t, "the daemon has written", func() bool { _, err := os.Stat(written); return err == nil })
	eventually(t, "it is taken away", func() bool { return sizeAt(e.Out.Path) <= lateMax })
	if content(t, e.Out) != "done\n" {
		t.Errorf("output %q", content(t, e.Out))
	}
}

// Files of an earlier runner that belong to no run are removed, those of runs
// are kept.
func TestLeftFiles(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	st := s.shell("p1", 1, "echo kept")
	a.run(st)
	e := a.until(st.Key, Exited)
	s.kill()
	left := filepath.Join(s.dir, outputName, "999.out")
	if err := os.WriteFile(left, []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.serve()
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of nobody: %v", err)
	}
	if content(t, e.Out) != "kept\n" {
		t.Errorf("output %q", content(t, e.Out))
	}
	a = s.agent("p1")
	next := s.shell("p1", 2, "echo next")
	a.run(next)
	if end := a.until(next.Key, Exited); end.Out.Path == e.Out.Path || content(t, e.Out) != "kept\n" {
		t.Errorf("the next run writes to %s", end.Out.Path)
	}
}

func TestTrimmed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(OutputMin, 1<<32).Draw(t, "limit")
		var size, dropped int64
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			size += rapid.Int64Range(0, 2*limit).Draw(t, "written")
			next := trimmed(size, dropped, limit)
			switch {
			case next < dropped:
				t.Fatalf("size %d: dropped goes from %d to %d", size, dropped, next)
			case next > dropped && size-dropped <= limit:
				t.Fatalf("size %d: drops from %d to %d within the limit %d", size, dropped, next, limit)
			case size-next > limit:
				t.Fatalf("size %d: keeps %d, more than %d", size, size-next, limit)
			case next > dropped && size-OutputHead-next < limit/2:
				t.Fatalf("size %d: keeps %d of the end, less than half of %d", size, size-OutputHead-next, limit)
			}
			dropped = next
		}
	})
}

// Where holes cannot be made the end is written again; what is read is the same.
func TestRewrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 1 << 20
	var line [16]byte
	for at := int64(0); at < size; at += 16 {
		patternLine(&line, at)
		if _, err := f.Write(line[:]); err != nil {
			t.Fatal(err)
		}
	}
	var dropped int64
	for _, dropped = range []int64{4 * trimAlign, 6 * trimAlign} {
		if err := rewrite(f, OutputHead+dropped); err != nil {
			t.Fatal(err)
		}
		checkPattern(t, File{Path: path, Size: size, Dropped: dropped})
	}
	if n := onDisk(t, path); n > size-dropped+trimAlign {
		t.Errorf("the file takes %d bytes on disk", n)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}
