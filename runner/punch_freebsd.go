package runner

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From sys/syscall.h, sys/fcntl.h and sys/unistd.h of FreeBSD 14 and later.
const (
	sysFspacectl     = 580
	spacectlDealloc  = 1
	pcDeallocPresent = 65
)

// punch makes [off, off+n) of f a hole. The error is errors.ErrUnsupported where
// the file system cannot: where it would write zeros instead, as UFS, and before
// FreeBSD 14.
func punch(f *os.File, off, n int64) error {
	has, _, errno := unix.Syscall(unix.SYS_FPATHCONF, f.Fd(), pcDeallocPresent, 0)
	if errno != 0 || has != 1 {
		return errors.ErrUnsupported
	}
	r := struct{ off, n int64 }{off, n} // struct spacectl_range
	for r.n > 0 {
		_, _, errno := unix.Syscall6(sysFspacectl, f.Fd(), spacectlDealloc,
			uintptr(unsafe.Pointer(&r)), 0, uintptr(unsafe.Pointer(&r)), 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return os.NewSyscallError("fspacectl", errno)
		}
	}
	return nil
}
