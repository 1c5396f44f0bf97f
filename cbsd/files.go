package cbsd

import (
	"io/fs"
	"os"
	"syscall"
)

// An identity tells whether a path still leads to the same, unchanged file. The
// zero identity is that of a file that is not there.
type identity struct {
	dev, ino, size, mtime int64
}

func identify(path string) identity {
	info, err := os.Stat(path)
	if err != nil {
		return identity{}
	}
	id := inode(info)
	id.size, id.mtime = info.Size(), info.ModTime().UnixNano()
	return id
}

// inode identifies a file whatever is written to it.
func inode(info fs.FileInfo) identity {
	st := info.Sys().(*syscall.Stat_t)
	return identity{dev: int64(st.Dev), ino: int64(st.Ino)} //nolint:unconvert // types differ between systems
}

// blocks is the room in bytes that a file takes.
func blocks(info fs.FileInfo) int64 {
	return int64(info.Sys().(*syscall.Stat_t).Blocks) * 512 //nolint:unconvert // types differ between systems
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lexists is exists for a link that leads nowhere, too.
func lexists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
