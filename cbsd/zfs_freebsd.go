package cbsd

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

const zfsCommand = "/sbin/zfs"

// onZFS reports whether a directory, or the one above it, is on ZFS.
func onZFS(dir string) bool {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil && unix.Statfs(filepath.Dir(dir), &s) != nil {
		return false
	}
	return unix.ByteSliceToString(s.Fstypename[:]) == "zfs"
}
