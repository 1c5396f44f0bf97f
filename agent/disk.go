package agent

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	diskCache = 5 * time.Second
	zfsWait   = 2 * time.Second
)

// A disk knows how full the file system of a directory is. It is for one
// goroutine at a time.
type disk struct {
	at         time.Time
	used, size int64
}

// of returns how many bytes are used, and those with what is free; zeros where
// that cannot be found out. It is looked up once in diskCache.
func (d *disk) of(ctx context.Context, dir string) (used, size int64) {
	if time.Since(d.at) < diskCache {
		return d.used, d.size
	}
	d.at, d.used, d.size = time.Now(), 0, 0
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return 0, 0
	}
	unit := int64(fs.Bsize) //nolint:unconvert // of another type on FreeBSD
	d.used = int64(fs.Blocks-fs.Bfree) * unit
	d.size = d.used + max(int64(fs.Bavail), 0)*unit
	if !isZFS(&fs) {
		return d.used, d.size
	}
	// statfs does not count what lies in the datasets below.
	ctx, cancel := context.WithTimeout(ctx, zfsWait)
	defer cancel()
	out, err := exec.CommandContext(ctx, "zfs", "list", "-Hpo", "used,available", dir).Output()
	if all, free, ok := parseZFS(string(out)); err == nil && ok {
		d.used, d.size = all, all+free
	}
	return d.used, d.size
}

// parseZFS reads "used\tavailable\n".
func parseZFS(out string) (used, free int64, ok bool) {
	if strings.Count(out, "\n") != 1 {
		return 0, 0, false
	}
	n, err := fmt.Sscanf(out, "%d\t%d\n", &used, &free)
	return used, free, err == nil && n == 2 && used >= 0 && free >= 0
}
