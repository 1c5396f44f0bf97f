package journal

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Served says whether an agent has the journal at path open, and which.
func Served(path string) (Holder, bool, error) {
	var h Holder
	f, err := os.Open(path + ".lock")
	if errors.Is(err, fs.ErrNotExist) {
		return h, false, nil
	}
	if err != nil {
		return h, false, explain("looking at the lock of", path, err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return h, false, nil // the lock falls with f
	} else if !errors.Is(err, unix.EWOULDBLOCK) {
		return h, false, err
	}
	if json.NewDecoder(f).Decode(&h) != nil {
		h = Holder{} // it is being written
	}
	return h, true, nil
}

// Verify looks for what would keep an agent from opening the journal at path,
// and changes nothing in it; one that Open would migrate is fine. Errors are
// those of Open; fs.ErrNotExist: there is none yet, and nothing is known to keep
// it from being made.
func Verify(ctx context.Context, path, mode string) error {
	dir := filepath.Dir(path)
	for {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return explain("looking at journal", path, err)
		}
		dir = filepath.Dir(dir)
	}
	if mode != "delete" {
		if err := checkFilesystem(dir); err != nil {
			return err
		}
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return explain("looking at journal", path, &fs.PathError{Op: "write to", Path: dir, Err: err})
	}
	db, err := openReader(path, 1)
	if err != nil {
		return err
	}
	defer db.Close()
	return NewReader(db, path).Check(ctx)
}
