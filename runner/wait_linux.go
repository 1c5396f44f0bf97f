package runner

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// waitAny returns a child that has ended, and leaves it to be waited for. Where
// none has it waits for one, or returns 0 at once.
func waitAny(block bool) (pid int, err error) {
	options := unix.WEXITED | unix.WNOWAIT
	if !block {
		options |= unix.WNOHANG
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, options, nil); err != nil {
		return 0, err
	}
	// si_pid is the first field of siginfo_t's union, which follows three ints
	// with the alignment of a pointer.
	const at = (12 + unsafe.Sizeof(uintptr(0)) - 1) &^ (unsafe.Sizeof(uintptr(0)) - 1)
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), at))), nil
}
