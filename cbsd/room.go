package cbsd

import (
	"os"

	"golang.org/x/sys/unix"
)

// room is how many bytes of a file system are free for us, and how many it has.
func room(dir string) (free, size int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	block := int64(s.Bsize)        //nolint:unconvert // types differ between systems
	free = int64(s.Bavail) * block //nolint:unconvert // types differ between systems
	if os.Geteuid() == 0 && free < 0 {
		free = 0 // FreeBSD counts what only root may use as less than nothing
	}
	return free, int64(s.Blocks) * block, nil
}
