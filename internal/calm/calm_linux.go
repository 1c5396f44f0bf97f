package calm

import (
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	slack        = 1_000_000 // ns: a system call that lasts is noticed after a millisecond
	defaultSlack = 50_000    // the kernel's own
)

// Monitor lets the kernel wake the monitor up to a millisecond later, for as long
// as the process lives. It does nothing where that is not allowed, which takes
// CAP_SYS_NICE.
//
// The monitor is the first thread that the runtime starts, and threads are listed
// in the order of their start. If it ever were another one, that one's sleeps would
// be late instead.
func Monitor() {
	f, err := os.Open("/proc/self/task")
	if err != nil {
		return
	}
	defer f.Close()
	threads, err := f.Readdirnames(2)
	if err != nil || len(threads) < 2 {
		return
	}
	_ = os.WriteFile("/proc/"+threads[1]+"/timerslack_ns", strconv.AppendInt(nil, slack, 10), 0) // see proc_pid_timerslack_ns(5)
}

// Exact runs f on a thread with the kernel's own slack, which processes that f
// starts inherit. One that the monitor has started would pass on the monitor's.
func Exact(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, defaultSlack, 0, 0, 0) // never fails
	f()
}
