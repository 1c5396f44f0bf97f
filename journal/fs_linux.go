package journal

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// checkFilesystem refuses file systems whose shared memory or locks do not do
// what a write-ahead log needs (sqlite.org/wal.html). Magic numbers: statfs(2).
func checkFilesystem(dir string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("asking for the file system of %s: %w", dir, err)
	}
	switch uint32(s.Type) {
	case unix.NFS_SUPER_MAGIC:
		return badFilesystem(dir, "NFS")
	case unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC:
		return badFilesystem(dir, "SMB")
	case unix.FUSE_SUPER_MAGIC:
		return badFilesystem(dir, "FUSE")
	}
	return nil
}
