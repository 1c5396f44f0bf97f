package runner

import "golang.org/x/sys/unix"

// claim reports whether fd, a file opened for writing, is open nowhere else.
//
// The kernel grants a write lease only for a file that nobody else has open. It
// sees a daemon that has opened /dev/stdout anew too, which a lock on what it
// inherited would not. Where the file system knows no leases, it is that lock:
// it stays with the open file, so with all who inherit it, and falls when the
// last of them has closed it.
func claim(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK)
	switch err {
	case nil:
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
		return err == nil
	case unix.EAGAIN:
		return false
	}
	return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil
}
