package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cbsd/cbsdmq/internal/proc"
)

func TestRun(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	path, open := gate(t)
	st := s.shell("p1", 1, fmt.Sprintf("echo out; echo err >&2; exec 3<%s; exit 3", path))
	a.run(st)

	started := a.until(st.Key, Started) // however late: it would not be told of one that has ended
	open()
	if started.PID <= 0 || started.Start == 0 || started.Job != st.Job {
		t.Errorf("started as %+v", started)
	}
	got := a.until(st.Key, Exited)
	want := Event{
		Key: st.Key, Kind: Exited, Job: st.Job, PID: started.PID, Start: started.Start, Status: 3,
		Out: File{Size: 4}, Err: File{Size: 4},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Event{}, "Signalled", "At"), cmpopts.IgnoreFields(File{}, "Path")); diff != "" {
		t.Errorf("exited (-want +got):\n%s", diff)
	}
	if out, err := content(t, got.Out), content(t, got.Err); out != "out\n" || err != "err\n" {
		t.Errorf("output %q and %q", out, err)
	}

	if snap := a.list("p1"); len(snap.Runs) != 1 || snap.Mark != st.Key {
		t.Errorf("before the acknowledgement: %+v", snap)
	}
	a.ack(st.Key)
	if snap := a.list("p1"); len(snap.Runs) != 0 || snap.Mark != st.Key {
		t.Errorf("after the acknowledgement: %+v", snap)
	}
}

// A command that is over before it could be introduced is told of all the same.
func TestShortRun(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	for n := uint64(1); n <= 50; n++ {
		st := s.shell("p1", n, "")
		st.Path, st.Args = "/bin/true", nil
		a.run(st)
		e := a.until(st.Key, Exited)
		if e.Status != 0 || e.Signal != 0 || e.PID == 0 {
			t.Errorf("ended as %+v", e)
		}
		a.ack(st.Key)
	}
}

func TestCannotExecute(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for i, test := range []struct {
		path, dir string
		errno     syscall.Errno
		reason    string
	}{
		{path: "/no/such/program", errno: syscall.ENOENT, reason: "executing /no/such/program: no such file or directory"},
		{path: write("plain", "#!/bin/sh\n", 0o600), errno: syscall.EACCES, reason: "executing " + dir + "/plain: permission denied"},
		{path: dir, errno: syscall.EACCES, reason: "executing " + dir + ": permission denied"},
		{path: write("orphaned", "#!/no/such/shell\n", 0o700), errno: syscall.ENOENT,
			reason: "executing " + dir + "/orphaned: its interpreter is missing: no such file or directory"},
		{path: write("text", "echo\n", 0o700), errno: syscall.ENOEXEC, reason: "executing " + dir + "/text: exec format error"},
		{path: "/bin/true", dir: "/no/such/dir", errno: syscall.ENOENT,
			reason: "changing to directory /no/such/dir: no such file or directory"},
	} {
		st := s.shell("p1", uint64(i+1), "")
		st.Path, st.Dir = test.path, test.dir
		a.run(st)
		e := a.until(st.Key, Failed)
		if e.Errno != test.errno || e.Reason != test.reason || e.PID != 0 {
			t.Errorf("%s: %v %q, want %v %q", test.path, e.Errno, e.Reason, test.errno, test.reason)
		}
		a.ack(st.Key)
	}
	if snap := a.list("p1"); len(snap.Runs) != 0 {
		t.Errorf("kept after the acknowledgements: %+v", snap.Runs)
	}
}

func TestRefused(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	mark := filepath.Join(t.TempDir(), "ran")
	touch := func(epoch, n uint64) Start {
		st := s.shell("p1", n, "echo x >>"+mark)
		st.Epoch = epoch
		return st
	}
	run := func(st Start) {
		t.Helper()
		a.run(st)
		a.until(st.Key, Exited)
	}
	refused := func(st Start) {
		t.Helper()
		a.run(st)
		e := a.until(st.Key, Refused)
		if e.Temporary || !strings.Contains(e.Reason, "not higher") {
			t.Errorf("%v refused with %q, temporary %v", st.Key, e.Reason, e.Temporary)
		}
	}
	run(touch(1, 5))
	refused(touch(1, 5)) // sent twice
	refused(touch(1, 4)) // out of order
	refused(touch(0, 9)) // by an agent that lost the lease
	run(touch(1, 7))
	run(touch(2, 1)) // the pool moved
	refused(touch(1, 8))
	a.ack(Key{"p1", 1, 5}, Key{"p1", 1, 7}, Key{"p1", 2, 1})
	refused(touch(2, 1)) // forgotten, and refused all the same

	s.restart()
	a = s.agent()
	if snap := a.list("p1"); snap.Mark != (Key{"p1", 2, 1}) {
		t.Errorf("mark after a restart is %v", snap.Mark)
	}
	refused(touch(2, 1))
	refused(touch(1, 9))
	run(touch(2, 2))

	// Another pool counts for itself.
	other := s.shell("p2", 1, "exit 0")
	a.list("p2")
	run(other)

	b, err := os.ReadFile(mark)
	if err != nil || len(b) != 2*4 {
		t.Errorf("commands ran %d times, %v, want 4", len(b)/2, err)
	}
}

// One message holds starts that run and starts that are refused.
func TestBatch(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	var starts []Start
	for _, n := range []uint64{1, 2, 2, 3, 1, 4} {
		starts = append(starts, s.shell("p1", n, "exit "+fmt.Sprint(n)))
	}
	a.run(starts...)
	for n := uint64(1); n <= 4; n++ {
		if e := a.until(Key{"p1", 1, n}, Exited); e.Status != int(n) {
			t.Errorf("%d exited with %d", n, e.Status)
		}
	}
	a.until(Key{"p1", 1, 1}, Refused)
	a.until(Key{"p1", 1, 2}, Refused)
}

func TestRefusedAsMalformed(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	for i, spoil := range []func(*Start){
		func(st *Start) { st.Path = "" },
		func(st *Start) { st.Path = "/bin/true\x00" },
		func(st *Start) { st.Args = []string{"a\x00b"} },
		func(st *Start) { st.Env = []string{"A=\x00"} },
		func(st *Start) { st.Job = "a\x00b" },
		func(st *Start) { st.Dir = "/\x00" },
	} {
		st := s.shell("p1", uint64(i+1), "exit 0")
		spoil(&st)
		a.run(st)
		if e := a.until(st.Key, Refused); e.Temporary {
			t.Errorf("%d: %q is temporary", i, e.Reason)
		}
	}
	if snap := a.list("p1"); snap.Mark.N != 0 || len(snap.Runs) != 0 {
		t.Errorf("refused starts left %+v", snap)
	}
}

func TestParallel(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1", "p2")
	const at = 64
	path, open := gate(t)
	var starts []Start
	for n := range uint64(at) {
		pool := fmt.Sprintf("p%d", 1+n%2)
		starts = append(starts, s.shell(pool, n+1, fmt.Sprintf(
			`echo $CBSDMQ_JOB; echo e $CBSDMQ_JOB >&2; [ %d -gt 0 ] || exec 3<%s; exit %d`, n, path, n)))
	}
	a.run(starts...)
	paths := make(map[string]bool)
	for n := uint64(at); n > 0; n-- {
		if n == 1 {
			open()
		}
		st := starts[n-1]
		e := a.until(st.Key, Exited)
		if e.Status != int(n-1) {
			t.Errorf("%v: status %d", st.Key, e.Status)
		}
		if out, err := content(t, e.Out), content(t, e.Err); out != st.Job+"\n" || err != "e "+st.Job+"\n" {
			t.Errorf("%v: output %q and %q", st.Key, out, err)
		}
		paths[e.Out.Path] = true
	}
	if len(paths) != at {
		t.Errorf("%d runs wrote to %d files", at, len(paths))
	}
	// Files are used again once they have been given back.
	for _, st := range starts {
		a.ack(st.Key)
	}
	st := s.shell("p1", 1000, "echo again")
	a.run(st)
	e := a.until(st.Key, Exited)
	if !paths[e.Out.Path] || content(t, e.Out) != "again\n" {
		t.Errorf("%s holds %q", e.Out.Path, content(t, e.Out))
	}
}

func TestKill(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	kill := func(k Key, sig syscall.Signal) error { return a.Kill(t.Context(), k, sig) }

	st := s.shell("p1", 1, "echo up; sleep 1000 & wait")
	a.run(st)
	a.until(st.Key, Started)
	if err := kill(st.Key, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if e := a.until(st.Key, Exited); e.Signal != syscall.SIGTERM || e.Status != 0 || !e.Signalled {
		t.Errorf("exited with status %d, signal %v, signalled %v", e.Status, e.Signal, e.Signalled)
	}
	eventually(t, "the sleep of its group is gone", func() bool { return !lives(t, st.Job) })
	if err := kill(st.Key, syscall.SIGKILL); err == nil || !strings.Contains(err.Error(), "nothing of it is left") {
		t.Errorf("killing what is gone: %v", err)
	}
	a.ack(st.Key)
	if err := kill(st.Key, syscall.SIGKILL); err == nil || !strings.Contains(err.Error(), "no run (1, 1)") {
		t.Errorf("killing what is acknowledged: %v", err)
	}
}

// The command has ended, its group has not: it can be ended too. What has made
// its own session is never touched.
func TestKillRestOfGroup(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	dir := t.TempDir()
	st := s.shell("p1", 1, `setsid sleep 1000 & echo $! >free; sleep 1000 & exit 0`)
	st.Dir = dir
	a.run(st)
	if e := a.until(st.Key, Exited); e.Signalled {
		t.Error("it ended by itself, and is said to have been signalled")
	}
	eventually(t, "both sleeps run", func() bool {
		var n int
		for _, p := range jobProcesses(t, st.Job) {
			if len(p.Args) > 0 && p.Args[0] == "sleep" {
				n++
			}
		}
		return n == 2
	})
	if err := a.Kill(t.Context(), st.Key, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	eventually(t, "only the one with its own session is left", func() bool { return len(jobProcesses(t, st.Job)) == 1 })
	b, err := os.ReadFile(filepath.Join(dir, "free"))
	if err != nil {
		t.Fatal(err)
	}
	left := jobProcesses(t, st.Job)
	if want := strings.TrimSpace(string(b)); len(left) != 1 || fmt.Sprint(left[0].PID) != want || left[0].SID != left[0].PID {
		t.Errorf("left are %+v, want the process %s", left, want)
	}
}

func TestSnapshotIsSorted(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	var want []Key
	for n := uint64(1); n <= 20; n++ {
		st := s.shell("p1", n, "exit 0")
		want = append(want, st.Key)
		a.run(st)
	}
	for _, k := range want {
		a.until(k, Exited)
	}
	var got []Key
	for _, e := range a.list("p1").Runs {
		got = append(got, e.Key)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

// jobProcesses returns the processes with the environment of a job.
func jobProcesses(t testing.TB, job string) []proc.Process {
	t.Helper()
	pids, err := proc.FindEnv(JobVariable, job)
	if err != nil {
		t.Fatal(err)
	}
	list, err := proc.List()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list, func(p proc.Process) bool { return !slices.Contains(pids, p.PID) })
}

func lives(t testing.TB, job string) bool { return len(jobProcesses(t, job)) > 0 }
