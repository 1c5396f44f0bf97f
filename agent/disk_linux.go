package agent

import "golang.org/x/sys/unix"

func isZFS(fs *unix.Statfs_t) bool { return fs.Type == 0x2fc12fc1 }
