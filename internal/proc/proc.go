// Package proc identifies processes: by pid and start time, by their
// environment, and by the boot of the machine in which both mean something.
//
// A pid alone is never proof of life: it is used again after the process is
// gone. Pid, start time and boot id together are.
package proc

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrGone is returned for a pid that no process has.
var ErrGone = errors.New("no such process")

// A Start is when a process was started, counted from the machine's boot so
// that setting the clock does not move it. On Linux it is in clock ticks, on
// FreeBSD in microseconds. It means something only together with BootID.
type Start int64

// A Process is one line of List.
type Process struct {
	PID, PPID int
	PGID, SID int
	UID       int // effective
	Start     Start
	Zombie    bool
	TTY       string   // controlling terminal as in ps(1), pts/3; "" where there is none
	Args      []string // nil for zombies, kernel threads and those that may not be read
}

// StartTime returns when the process pid was started. The error is ErrGone
// where there is none. A zombie still has a start time.
func StartTime(pid int) (Start, error) {
	p, err := read(pid)
	if err != nil {
		return 0, fmt.Errorf("start time of process %d: %w", pid, err)
	}
	return p.Start, nil
}

// Alive reports whether pid is still the process that was started at start. A
// zombie is not alive. With an error that is not known.
func Alive(pid int, start Start) (bool, error) {
	p, err := read(pid)
	if errors.Is(err, ErrGone) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for process %d: %w", pid, err)
	}
	return !p.Zombie && same(p.Start, start), nil
}

// FindEnv returns the pids of the processes, zombies apart, that were given the
// environment variable name with that value. Processes whose environment the
// caller may not read are passed over; root may read all.
func FindEnv(name, value string) ([]int, error) {
	pids, err := pids()
	if err != nil {
		return nil, fmt.Errorf("looking for processes with %s=%s: %w", name, value, err)
	}
	want := []byte(name + "=" + value)
	var found []int
	for _, pid := range pids {
		// An error here is a process that is gone or not ours to see.
		env, err := environ(pid)
		if err == nil && hasEntry(env, want) {
			found = append(found, pid)
		}
	}
	return found, nil
}

// Environ returns the environment that the process pid was given, as
// name=value. The error is ErrGone where there is none.
func Environ(pid int) ([]string, error) {
	env, err := environ(pid)
	if err != nil {
		return nil, fmt.Errorf("environment of process %d: %w", pid, err)
	}
	return split(env), nil
}

// hasEntry reports whether block, entries that end with NUL, has want.
func hasEntry(block, want []byte) bool {
	for len(block) > 0 {
		entry, rest, _ := bytes.Cut(block, []byte{0})
		if bytes.Equal(entry, want) {
			return true
		}
		block = rest
	}
	return false
}

// split takes a block of entries that end with NUL apart.
func split(block []byte) []string {
	var list []string
	for len(block) > 0 {
		entry, rest, _ := bytes.Cut(block, []byte{0})
		list = append(list, string(entry))
		block = rest
	}
	return list
}
