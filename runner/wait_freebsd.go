package runner

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// pAll is P_ALL of sys/wait.h.
const pAll = 7

// waitAny waits until a child has ended, and leaves it to be waited for.
func waitAny() (pid int, err error) {
	r, _, errno := unix.Syscall6(unix.SYS_WAIT6, pAll, 0, 0, syscall.WEXITED|syscall.WNOWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
