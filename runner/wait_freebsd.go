package runner

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// pAll is P_ALL of sys/wait.h.
const pAll = 7

// waitAny returns a child that has ended, and leaves it to be waited for. Where
// none has it waits for one, or returns 0 at once.
func waitAny(block bool) (pid int, err error) {
	options := uintptr(syscall.WEXITED | syscall.WNOWAIT)
	if !block {
		options |= syscall.WNOHANG
	}
	r, _, errno := unix.Syscall6(unix.SYS_WAIT6, pAll, 0, 0, options, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
