package cbsd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// copyTree copies a file or directory into the directory to, by tar(1) of the
// system: owners, modes, times, links, flags and holes come along. lock is that
// of a stream.
func copyTree(ctx context.Context, from, to string, lock *os.File) error {
	create := append(append([]string{"tar"}, tarCreate...), "-C", filepath.Dir(from), filepath.Base(from))
	extract := append(append([]string{"tar"}, tarExtract...), "-C", to)
	writer, reader := stream{write: create, read: extract, lock: lock}.run(ctx)
	if reader != nil && !fails(writer) {
		return fmt.Errorf("writing to %s: %w", to, reader)
	}
	if writer != nil {
		return fmt.Errorf("reading %s: %w", from, writer)
	}
	return reader
}

// sameTree compares what a copy has with what was copied: names, kinds, owners,
// modes, links, and the content of files. Times and what else tar brings along
// are taken as they are.
func sameTree(ctx context.Context, a, b string) error {
	count := 0
	err := filepath.WalkDir(a, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		count++
		rel, err := filepath.Rel(a, path)
		if err != nil {
			return err
		}
		return sameFile(ctx, path, filepath.Join(b, rel))
	})
	if err != nil {
		return err
	}
	more := 0
	err = filepath.WalkDir(b, func(_ string, _ fs.DirEntry, err error) error { more++; return err })
	if err == nil && more != count {
		err = fmt.Errorf("%s has %d files, %s has %d", a, count, b, more)
	}
	return err
}

func sameFile(ctx context.Context, a, b string) error {
	x, err := os.Lstat(a)
	if err != nil {
		return err
	}
	y, err := os.Lstat(b)
	if err != nil {
		return err
	}
	sx, sy := x.Sys().(*syscall.Stat_t), y.Sys().(*syscall.Stat_t)
	switch {
	case x.Mode() != y.Mode():
		return fmt.Errorf("%s has mode %s, %s has %s", a, x.Mode(), b, y.Mode())
	case os.Geteuid() == 0 && (sx.Uid != sy.Uid || sx.Gid != sy.Gid):
		return fmt.Errorf("%s and %s have other owners", a, b)
	case x.Mode()&os.ModeSymlink != 0:
		one, err1 := os.Readlink(a)
		two, err2 := os.Readlink(b)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if one != two {
			return fmt.Errorf("%s leads to %s, %s to %s", a, one, b, two)
		}
	case x.Mode().IsRegular():
		if x.Size() != y.Size() {
			return fmt.Errorf("%s has %d bytes, %s has %d", a, x.Size(), b, y.Size())
		}
		one, err1 := sumOf(ctx, a)
		two, err2 := sumOf(ctx, b)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		if one != two {
			return fmt.Errorf("%s and %s have other checksums", a, b)
		}
	}
	return nil
}

func sumOf(ctx context.Context, path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, &interruptible{ctx, f}); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// taken is the room that a file or directory takes.
func taken(path string) (sum int64) {
	_ = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read cannot be copied, and that is said then
		}
		if info, err := e.Info(); err == nil {
			sum += blocks(info)
		}
		return nil
	})
	return sum
}
