package agent

import "golang.org/x/sys/unix"

func isZFS(fs *unix.Statfs_t) bool { return int64(fs.Type) == 0x2fc12fc1 }
