package journal

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// reserveSize is what is set aside unless Options say otherwise.
const reserveSize = 4 << 20

// A reserve is space set aside on the disk, so that the ends of running
// commands can be written when everything else is full.
type reserve struct {
	path  string
	size  int64
	set   bool
	given bool // given up, and not set aside again since
}

// keep sets the space aside where there is enough of it. Random bytes, because
// a file system that compresses would give nothing back for zeros.
func (r *reserve) keep() {
	if r.size < 0 || r.set {
		return
	}
	if fi, err := os.Stat(r.path); err == nil && fi.Size() == r.size {
		r.set, r.given = true, false
		return
	}
	if free, err := available(filepath.Dir(r.path)); err != nil || free < 2*r.size {
		return
	}
	b := make([]byte, r.size)
	rand.Read(b)
	if err := os.WriteFile(r.path, b, 0o600); err != nil {
		r.free()
		return
	}
	r.set, r.given = true, false
}

// free gives the space back and reports whether there was any. The file is cut
// first: a full ZFS may refuse to remove it.
func (r *reserve) free() bool {
	r.set, r.given = false, true
	if err := os.Truncate(r.path, 0); err != nil {
		return false
	}
	return os.Remove(r.path) == nil
}

// available is the room on the file system of dir, in bytes.
func available(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:unconvert // unsigned on FreeBSD
}

// RestoreReserve sets the reserve aside again after the disk was full, if there
// is room. It is called from time to time.
func (j *Journal) RestoreReserve() {
	j.reserve.keep()
	j.slack = j.reserve.given && j.freePages() >= j.reserve.size
}

// freePages is the room in bytes that dropped results have left within the
// file, which never gets shorter. It is as good as a reserve where the journal
// itself has filled the disk.
func (j *Journal) freePages() int64 {
	var pages, size int64
	ctx := context.Background()
	if j.write.QueryRowContext(ctx, "PRAGMA freelist_count").Scan(&pages) != nil ||
		j.write.QueryRowContext(ctx, "PRAGMA page_size").Scan(&size) != nil {
		return 0 // nothing can be said, so nothing is promised
	}
	return pages * size
}

// Low reports whether the reserve was given up and is not set aside again, nor
// room in its place: what is left is for the ends of jobs, and for what makes
// room.
func (j *Journal) Low() bool { return j.reserve.given && !j.slack }
