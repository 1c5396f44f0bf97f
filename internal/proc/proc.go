// Package proc identifies processes: by pid and start time, by their
// environment, and the machine's boot in which both mean something.
//
// A pid alone is never proof of life: it is used again after the process has
// gone. Pid, start time and boot id together are.
package proc

// A Start is when a process was started, counted from the machine's boot so
// that setting the clock does not move it. On Linux it is in clock ticks (field
// 22 of /proc/PID/stat), on FreeBSD in microseconds. It means something only
// together with BootID.
type Start int64

// A Process is one line of List.
type Process struct {
	PID, PPID int
	PGID, SID int
	UID       int
	Start     Start
	Zombie    bool
	TTY       string   // pts/3; "" without a terminal
	Args      []string // empty for zombies and kernel threads
}
