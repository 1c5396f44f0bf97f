package agent

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq/runner"
)

// fullBelow is the room in bytes below which a disk is taken for full: the last
// blocks of a file system are given away one by one.
const fullBelow = 64 << 10

// outputAtRisk is the warning for a command whose output ended on a full disk:
// few commands notice that they cannot print.
func outputAtRisk(e runner.Event) []string {
	if e.Out.Path == "" || !diskFull(filepath.Dir(e.Out.Path)) {
		return nil
	}
	return []string{"the disk of run_dir is full: what the command printed may be missing; make room on it"}
}

func diskFull(dir string) bool {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return false
	}
	free := s.Bfree
	if os.Geteuid() != 0 {
		free = uint64(max(s.Bavail, 0)) //nolint:unconvert // signed on FreeBSD
	}
	return free < fullBelow/uint64(max(s.Bsize, 1)) || free == 0 //nolint:unconvert // not the same type everywhere
}
