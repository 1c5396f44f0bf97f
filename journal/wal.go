package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
)

// checkLength refuses a database file that was cut. SQLite notices that only
// where it has no log: with one it takes pages that are in neither of the two
// for pages of zeros.
func checkLength(ctx context.Context, c querier, path string) error {
	var pages, size int64
	if err := c.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
		return err
	}
	if err := c.QueryRowContext(ctx, "PRAGMA page_size").Scan(&size); err != nil {
		return err
	}
	if fileSize(path) >= pages*size {
		return nil
	}
	logged, err := loggedPages(path+"-wal", size)
	if err != nil {
		return err
	}
	// Asked again: an agent may have moved pages from the log to the file.
	for p := fileSize(path)/size + 1; p <= pages; p++ {
		if !logged[p] && p != pendingByte/size+1 {
			return damaged(path, "it was cut: a part is missing that its log does not have")
		}
	}
	return nil
}

// pendingByte lies in a page that SQLite locks and never writes.
const pendingByte = 1 << 30

// loggedPages returns the numbers of the pages in a write-ahead log
// (sqlite.org/fileformat2.html, section 4).
func loggedPages(name string, pageSize int64) (map[int64]bool, error) {
	const headerSize, frameSize = 32, 24
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var header [headerSize]byte
	if _, err := f.ReadAt(header[:], 0); err != nil {
		return nil, ignoreEOF(err)
	}
	salts := [8]byte(header[16:24])
	pages := make(map[int64]bool)
	for at := int64(headerSize); ; at += frameSize + pageSize {
		var frame [frameSize]byte
		if _, err := f.ReadAt(frame[:], at); err != nil {
			return pages, ignoreEOF(err)
		}
		if [8]byte(frame[8:16]) != salts {
			return pages, nil // left from before the log was begun again
		}
		pages[int64(binary.BigEndian.Uint32(frame[:4]))] = true
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
