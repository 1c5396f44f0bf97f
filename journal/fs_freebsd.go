package journal

import "golang.org/x/sys/unix"

// filesystem names the kind of file system of dir.
func filesystem(dir string) (string, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(s.Fstypename[:]), nil
}
