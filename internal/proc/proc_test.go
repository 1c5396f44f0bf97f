package proc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// helper starts a process that lives until its standard input is closed.
func helper(t *testing.T, env ...string) (cmd *exec.Cmd, end func()) {
	t.Helper()
	cmd = exec.Command("/bin/sh", "-c", "echo up; read _; exit 0")
	cmd.Env = env
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd, func() { in.Close() }
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	const limit = time.Minute
	for deadline := time.Now().Add(limit); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func TestAlive(t *testing.T) {
	cmd, end := helper(t)
	pid := cmd.Process.Pid
	start, err := StartTime(pid)
	if err != nil {
		t.Fatal(err)
	}
	alive := func(start Start) bool {
		t.Helper()
		ok, err := Alive(pid, start)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if !alive(start) {
		t.Error("not alive while it waits for input")
	}
	if alive(start - 2e6) {
		t.Error("alive with the start time of an earlier process")
	}

	end()
	eventually(t, "the process is a zombie and not alive", func() bool { return !alive(start) })
	if got, err := StartTime(pid); err != nil || !same(got, start) {
		t.Errorf("start time of the zombie is %d, %v, want %d", got, err, start)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if alive(start) {
		t.Error("alive after it was waited for")
	}
	if _, err := StartTime(pid); !errors.Is(err, ErrGone) {
		t.Errorf("start time of a process that is gone: %v, want ErrGone", err)
	}
}

func TestEnvironment(t *testing.T) {
	job := fmt.Sprintf("pool/%d", os.Getpid()) // no other run of this test has it
	cmd, end := helper(t, "CBSDMQ_TEST_JOB="+job, "EMPTY=")
	env, err := Environ(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"CBSDMQ_TEST_JOB=" + job, "EMPTY="}, env); diff != "" {
		t.Errorf("Environ (-want +got):\n%s", diff)
	}
	find := func(value string) []int {
		t.Helper()
		pids, err := FindEnv("CBSDMQ_TEST_JOB", value)
		if err != nil {
			t.Fatal(err)
		}
		return pids
	}
	if diff := cmp.Diff([]int{cmd.Process.Pid}, find(job)); diff != "" {
		t.Errorf("FindEnv (-want +got):\n%s", diff)
	}
	for _, value := range []string{"pool/", job + "1", ""} {
		if pids := find(value); pids != nil {
			t.Errorf("FindEnv found %v for %q", pids, value)
		}
	}
	end()
	eventually(t, "a zombie is not found by its environment", func() bool { return find(job) == nil })
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := Environ(cmd.Process.Pid); !errors.Is(err, ErrGone) {
		t.Errorf("environment of a process that is gone: %v, want ErrGone", err)
	}
}

func TestList(t *testing.T) {
	cmd, _ := helper(t)
	list, err := List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(p Process) bool { return p.PID == cmd.Process.Pid })
	if i < 0 {
		t.Fatal("the process is not listed")
	}
	start, err := StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	sid, err := syscall.Getpgid(0)
	if err != nil {
		t.Fatal(err)
	}
	got := list[i]
	got.TTY = ""       // that of the test
	got.SID = got.PPID // likewise
	want := Process{
		PID: cmd.Process.Pid, PPID: os.Getpid(), PGID: sid, SID: os.Getpid(), UID: os.Geteuid(),
		Start: start, Args: []string{"/bin/sh", "-c", "echo up; read _; exit 0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
}

func TestBootID(t *testing.T) {
	a, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := BootID(); err != nil || a != b || len(a) < 16 {
		t.Errorf("BootID is %q and then %q, %v", a, b, err)
	}
}
