package cbsd

import (
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const zfsCommand = "/sbin/zfs"

// bsdtar finds holes by itself, and keeps flags and ACLs.
var (
	tarCreate  = []string{"-cf", "-"}
	tarExtract = []string{"-xpf", "-", "--numeric-owner", "-S"}
)

// onZFS reports whether a directory, or the one above it, is on ZFS.
func onZFS(dir string) bool {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil && unix.Statfs(filepath.Dir(dir), &s) != nil {
		return false
	}
	return unix.ByteSliceToString(s.Fstypename[:]) == "zfs"
}

// unprotect takes flags from files that keep them from being removed: those of a
// base system have schg.
func unprotect(path string) {
	_ = exec.Command("/bin/chflags", "-R", "0", path).Run() // what still protects them is said by who removes them
}
