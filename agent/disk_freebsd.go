package agent

import "golang.org/x/sys/unix"

func isZFS(fs *unix.Statfs_t) bool { return unix.ByteSliceToString(fs.Fstypename[:]) == "zfs" }
