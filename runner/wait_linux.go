package runner

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// waitAny waits until a child has ended, and leaves it to be waited for.
func waitAny() (pid int, err error) {
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		return 0, err
	}
	// si_pid is the first field of siginfo_t's union, which follows three ints
	// with the alignment of a pointer.
	const at = (12 + unsafe.Sizeof(uintptr(0)) - 1) &^ (unsafe.Sizeof(uintptr(0)) - 1)
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), at))), nil
}
