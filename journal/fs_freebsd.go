package journal

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// checkFilesystem refuses file systems whose shared memory or locks do not do
// what a write-ahead log needs (sqlite.org/wal.html).
func checkFilesystem(dir string) error {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("asking for the file system of %s: %w", dir, err)
	}
	name := unix.ByteSliceToString(s.Fstypename[:])
	if name == "nfs" || name == "smbfs" || strings.HasPrefix(name, "fusefs") {
		return badFilesystem(dir, name)
	}
	return nil
}
