package runner

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cbsd/cbsdmq/internal/proc"
)

// deadAgent starts a script through an agent of its own, a process that is
// killed as soon as it has been told that the command runs.
func (s *site) deadAgent(script string) (job string) {
	s.t.Helper()
	job = s.job(1)
	cmd := exec.Command(os.Args[0], s.dir, job, script)
	cmd.Env = append(os.Environ(), actAs+"=agent")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil || line != "started\n" {
		s.t.Fatalf("the agent says %q, %v", line, err)
	}
	return job
}

func TestKillAgent(t *testing.T) {
	s := newSite(t)
	path, open := gate(t)
	s.deadAgent(fmt.Sprintf("echo before; exec 3<%s; echo after; exit 4", path))

	a := s.agent()
	snap := a.list("p1")
	k := Key{"p1", 1, 1}
	if len(snap.Runs) != 1 || snap.Runs[0].Kind != Started || snap.Mark != k {
		t.Fatalf("the next agent finds %+v", snap)
	}
	open()
	e := a.until(k, Exited)
	if e.Status != 4 || e.PID != snap.Runs[0].PID || content(t, e.Out) != "before\nafter\n" {
		t.Errorf("exited as %+v with %q", e, content(t, e.Out))
	}
}

// The command ends while no agent is there.
func TestEndWithoutAgent(t *testing.T) {
	s := newSite(t)
	path, open := gate(t)
	job := s.deadAgent(fmt.Sprintf("exec 3<%s; exit 4", path))
	open()
	eventually(t, "the command is gone", func() bool { return !lives(t, job) })
	a := s.agent("p1")
	if e := a.until2(Key{"p1", 1, 1}); e.Kind != Exited || e.Status != 4 {
		t.Errorf("the next agent finds %+v", e)
	}
}

// until2 waits until a run has ended, by events or by the snapshot.
func (a *agent) until2(k Key) (end Event) {
	a.t.Helper()
	eventually(a.t, "the run has ended", func() bool {
		for _, e := range a.list(k.Pool).Runs {
			if e.Key == k && e.Kind.Ended() {
				end = e
				return true
			}
		}
		return false
	})
	return end
}

func TestKillRunner(t *testing.T) {
	for _, test := range []struct {
		name  string
		agent bool // killed too
	}{{"runner", false}, {"both", true}} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t)
			path, open := gate(t)
			script := fmt.Sprintf("echo before; exec 3<%s; echo after; exit 4", path)
			k := Key{"p1", 1, 1}
			if test.agent {
				s.deadAgent(script)
			} else {
				a := s.agent("p1")
				a.run(s.shell("p1", 1, script))
				a.until(k, Started)
			}
			before := s.agent().list("p1")
			s.restart()

			a := s.agent()
			snap := a.list("p1")
			if snap.RunnerID == before.RunnerID || snap.BootID != before.BootID || snap.Mark != k {
				t.Errorf("before: %+v, after: %+v", before, snap)
			}
			if len(snap.Runs) != 1 || snap.Runs[0].Kind != Orphan || snap.Runs[0].PID != before.Runs[0].PID {
				t.Fatalf("after the runner's death: %+v", snap.Runs)
			}
			orphan := snap.Runs[0]
			if alive, err := proc.Alive(orphan.PID, orphan.Start); !alive || err != nil {
				t.Errorf("the orphan's identity is not that of a living process: %v", err)
			}
			a.ack(k) // an orphan has not ended
			open()
			e := a.until(k, Lost)
			if e.PID != orphan.PID || e.Job != orphan.Job || e.Out.Size != 13 || content(t, e.Out) != "before\nafter\n" {
				t.Errorf("lost as %+v with %q", e, content(t, e.Out))
			}

			// The next runner knows that it is gone, and that it was acknowledged.
			s.restart()
			a = s.agent()
			if snap := a.list("p1"); len(snap.Runs) != 1 || snap.Runs[0].Kind != Lost || snap.Runs[0].Out.Size != 13 {
				t.Errorf("after the next restart: %+v", snap.Runs)
			}
			a.ack(k)
			if snap := a.list("p1"); len(snap.Runs) != 0 {
				t.Errorf("after the acknowledgement: %+v", snap.Runs)
			}
		})
	}
}

// An orphan can be killed; by its identity, not by its pid.
func TestKillOrphan(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	st := s.shell("p1", 1, "sleep 1000 & wait")
	a.run(st)
	a.until(st.Key, Started)
	s.restart()
	a = s.agent("p1")
	if err := a.Kill(t.Context(), st.Key, syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	a.until(st.Key, Lost)
	eventually(t, "the sleep of its group is gone", func() bool { return !lives(t, st.Job) })
	if err := a.Kill(t.Context(), st.Key, syscall.SIGTERM); err == nil {
		t.Error("the orphan was killed twice")
	}
}

// writeLog leaves a log as a runner of this boot would.
func (s *site) writeLog(lines ...string) {
	s.t.Helper()
	boot, err := proc.BootID()
	if err != nil {
		s.t.Fatal(err)
	}
	text := strings.ReplaceAll(strings.Join(lines, ""), "BOOT", boot)
	if err := os.WriteFile(filepath.Join(s.dir, logName), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// The runner was killed between the record of a start and that of its pid.
func TestKilledInFork(t *testing.T) {
	s := newSite(t)
	s.kill()
	alive, gone := s.job(1), s.job(2)
	s.writeLog("B BOOT x\n",
		fmt.Sprintf("I \"p1\" 1 1 1700000000000000000 1 1048576 %q\n", alive),
		fmt.Sprintf("I \"p1\" 1 2 1700000000000000000 2 1048576 %q\n", gone))
	cmd := exec.Command("/bin/sh", "-c", "sleep 1000 & wait")
	cmd.Env = []string{JobVariable + "=" + alive}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	t.Cleanup(func() { cmd.Process.Kill() })
	eventually(t, "the command and its child run", func() bool { return len(jobProcesses(t, alive)) == 2 })

	s.serve()
	runs := s.agent().list("p1").Runs
	if len(runs) != 2 || runs[0].Kind != Orphan || runs[0].PID != cmd.Process.Pid || runs[0].Job != alive {
		t.Errorf("the one that lives: %+v", runs)
	}
	if len(runs) != 2 || runs[1].Kind != Lost || runs[1].PID != 0 || runs[1].Job != gone {
		t.Errorf("the one that does not: %+v", runs)
	}
}

// A pid of another boot means nothing, even if a process has it.
func TestReboot(t *testing.T) {
	s := newSite(t)
	s.kill()
	start, err := proc.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	s.writeLog("B another-boot x\n",
		"I \"p1\" 1 1 1700000000000000000 1 1048576 \"job\"\n",
		fmt.Sprintf("S \"p1\" 1 1 1700000000000000000 %d %d\n", os.Getpid(), start))
	s.serve()
	a := s.agent()
	if runs := a.list("p1").Runs; len(runs) != 1 || runs[0].Kind != Lost {
		t.Errorf("after a reboot: %+v", runs)
	}
	if err := a.Kill(t.Context(), Key{"p1", 1, 1}, syscall.SIGKILL); err == nil {
		t.Error("a process of another boot was killed")
	}
}

// Half a line, garbage and lines without their run do not stop a runner.
func TestBrokenLog(t *testing.T) {
	s := newSite(t)
	s.kill()
	s.writeLog("B BOOT x\n", "M \"p2\" 3 4\n",
		"I \"p1\" 1 1 1700000000000000000 1 1048576 \"job 1\"\n",
		"X \"p1\" 1 1 1700000000000000001 7 0 0 0 0 0\n",
		"\n", "garbage\n", "I \"p1\" 1\n", "X \"p1\" 9 9 1 2 3 4 5 6 7\n", "Z \"p1\" 1 2\n", "I \"p1 1 2 3 4 5\n", "\x00\xff\n",
		"I \"p1\" 1 2 1700000000000000002 2 1048576 \"job 2\"\n",
		"X \"p1\" 1 2 17000000000")
	s.serve()
	a := s.agent()
	snap := a.list("p1")
	if len(snap.Runs) != 2 || snap.Runs[0].Kind != Exited || snap.Runs[0].Status != 7 || snap.Runs[1].Kind != Lost ||
		snap.Mark != (Key{"p1", 1, 2}) {
		t.Errorf("read as %+v", snap)
	}
	if snap := a.list("p2"); snap.Mark != (Key{"p2", 3, 4}) {
		t.Errorf("mark of the other pool is %v", snap.Mark)
	}
	st := s.shell("p1", 3, "exit 5")
	a.run(st)
	if e := a.until(st.Key, Exited); e.Status != 5 {
		t.Errorf("a start after it exited with %d", e.Status)
	}
	s.kill()
	if log := s.log(); strings.Count(log, "skipped lines") != 1 || !strings.Contains(log, "lines=5") {
		t.Errorf("it says:\n%s", log)
	}
}

// Marks count for runners of all protocols.
func TestMarksOfAnotherProtocol(t *testing.T) {
	s := newSite(t)
	s.kill()
	other := filepath.Join(s.dir, "runner-0.log")
	if err := os.WriteFile(other, []byte("B x y\nI \"p1\" 4 2 in ways not known here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.serve()
	if snap := s.agent().list("p1"); snap.Mark != (Key{"p1", 4, 2}) || len(snap.Runs) != 0 {
		t.Errorf("a runner beside one of another protocol knows %+v", snap)
	}
}

// A runner that is told to end leaves commands alone.
func TestTerminate(t *testing.T) {
	s := newSite(t)
	a := s.agent("p1")
	path, open := gate(t)
	st := s.shell("p1", 1, fmt.Sprintf("exec 3<%s", path))
	a.run(st)
	a.until(st.Key, Started)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("runner: %v", err)
	}
	if !strings.Contains(s.log(), "leaves commands running") {
		t.Errorf("it says:\n%s", s.log())
	}
	s.cmd = nil
	s.serve()
	a = s.agent()
	if runs := a.list("p1").Runs; len(runs) != 1 || runs[0].Kind != Orphan {
		t.Errorf("after it: %+v", runs)
	}
	open()
	a.until(st.Key, Lost)
}
