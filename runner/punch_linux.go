package runner

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// punch makes [off, off+n) of f a hole. The error is errors.ErrUnsupported where
// the file system cannot.
func punch(f *os.File, off, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errors.ErrUnsupported
	}
	return os.NewSyscallError("fallocate", err)
}
