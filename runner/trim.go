package runner

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// trimAlign is a multiple of the block sizes in use, so that whole blocks are
// given back.
const trimAlign = 64 << 10

// trimmed returns how much of an output file should be dropped when size bytes
// have been written to it, dropped of them are gone already, and at most limit
// may be kept: nothing more, or so much that half the limit is kept of the end.
func trimmed(size, dropped, limit int64) int64 {
	if size-dropped <= limit {
		return dropped
	}
	return (size-limit/2)/trimAlign*trimAlign - OutputHead
}

// drop gives back the space of [OutputHead, OutputHead+dropped) of a file that a
// command may be appending to. The file keeps its length and the rest its place.
func drop(path string, dropped int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("trimming output: %w", err)
	}
	defer f.Close()
	err = punch(f, OutputHead, dropped)
	if errors.Is(err, errors.ErrUnsupported) {
		err = rewrite(f, OutputHead+dropped)
	}
	if err != nil {
		return fmt.Errorf("trimming output: %w", err)
	}
	return nil
}

// rewrite is drop for file systems that cannot make holes in a file, but have
// sparse files: it cuts the file and writes the end again, from tail on. What a
// command appends in the instant of the cut is lost.
func rewrite(f *os.File, tail int64) error {
	// The end is kept on disk meanwhile, as it may be large.
	spare, err := os.CreateTemp(filepath.Dir(f.Name()), "trim-")
	if err != nil {
		return err
	}
	defer spare.Close()
	if err := os.Remove(spare.Name()); err != nil {
		return err
	}
	var n int64
	for {
		m, err := io.Copy(spare, io.NewSectionReader(f, tail+n, 1<<62))
		if err != nil {
			return err
		}
		if n += m; m == 0 {
			break
		}
	}
	if err := f.Truncate(OutputHead); err != nil {
		return err
	}
	if err := f.Truncate(tail + n); err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(f, tail), io.NewSectionReader(spare, 0, n))
	return err
}
