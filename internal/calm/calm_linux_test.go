package calm

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func slackOf(t *testing.T, thread string) string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + thread + "/timerslack_ns")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// TestMonitor finds the monitor in what the kernel says threads wait in: it alone
// sleeps by nanosleep(2).
func TestMonitor(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may change the slack of another thread: NOT TESTED")
	}
	Monitor()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	var calm []string
	for _, thread := range threads {
		if slackOf(t, thread.Name()) == "1000000" {
			calm = append(calm, thread.Name())
		}
	}
	if len(calm) != 1 {
		t.Fatalf("these threads are calm: %v", calm)
	}
	for range 1000 {
		text, err := os.ReadFile("/proc/" + calm[0] + "/wchan")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "nanosleep") {
			return
		}
	}
	t.Errorf("thread %s never sleeps by nanosleep", calm[0])
}

// A process that a calm thread starts is not calm.
func TestExact(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, slack, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	cat := func() string {
		out, err := exec.Command("cat", "/proc/self/timerslack_ns").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	if got := cat(); got != "1000000" {
		t.Errorf("without Exact a process has a slack of %s ns", got)
	}
	Exact(func() {
		if got := cat(); got != "50000" {
			t.Errorf("a process has a slack of %s ns", got)
		}
	})
}
