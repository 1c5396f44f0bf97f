package runner

import "golang.org/x/sys/unix"

// claim reports whether fd, a file opened for writing, is open nowhere else
// where it was claimed.
//
// The lock stays with the open file, so with all who inherit it, and falls when
// the last of them has closed it. Opening /dev/stdout gives the same open file
// on FreeBSD (fd(4)), so it holds for that too.
func claim(fd int) bool {
	return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil
}
