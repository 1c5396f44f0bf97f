package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// makeDir makes dir and what is missing above it, synced: a file is only as
// safe as the names that lead to it.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// fileSize is 0 where there is no such file.
func fileSize(name string) int64 {
	fi, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// writeTemp writes b, synced, to a new file beside name and returns the new
// file's name.
func writeTemp(name string, b []byte) (tmp string, err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.new") // 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// replaceFile makes b the contents of the file name: after a crash it has the
// old ones or the new ones.
func replaceFile(name string, b []byte) error {
	tmp, err := writeTemp(name, b)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(name))
}

// createFile makes the file name with the contents b, unless there is one:
// then the error is fs.ErrExist. Nobody sees half of it.
func createFile(name string, b []byte) error {
	tmp, err := writeTemp(name, b)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}
