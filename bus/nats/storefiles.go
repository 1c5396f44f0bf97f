package nats

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// storeStreams is where a server without accounts keeps its streams, below its
// StoreDir: a directory for each, with meta.* and msgs/N.blk.
const storeStreams = "jetstream/$G/streams"

// storeFiles syncs the files of a server's streams that have changed. It is for
// one goroutine.
type storeFiles struct {
	dir    string
	fsync  func(*os.File) error
	synced map[string]map[string]fs.FileInfo // by stream and file, as they were

	// broken is set once a sync has failed. The system may tell of lost writes
	// only once, so a later success would prove nothing about what came before.
	broken error
}

func newStoreFiles(dir string) *storeFiles {
	return &storeFiles{dir: dir, fsync: (*os.File).Sync, synced: map[string]map[string]fs.FileInfo{}}
}

// sync returns when all that was written to the stream before is on the disk.
func (f *storeFiles) sync(stream string) error {
	if f.broken != nil {
		return f.broken
	}
	if stream == "" || strings.ContainsAny(stream, `/\`) || stream == "." || stream == ".." {
		return fmt.Errorf("not the name of a stream: %q", stream)
	}
	dir := filepath.Join(f.dir, stream)
	before, known := f.synced[stream]
	now, err := blocks(filepath.Join(dir, "msgs"))
	if err != nil {
		delete(f.synced, stream)
		return err
	}
	added := false
	for name, is := range now {
		was, ok := before[name]
		if ok && os.SameFile(was, is) && was.Size() == is.Size() && was.ModTime().Equal(is.ModTime()) {
			continue
		}
		// A block that has gone meanwhile held nothing that is still there.
		if err := f.file(filepath.Join(dir, "msgs", name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		added = added || !ok || !os.SameFile(was, is)
	}
	if added {
		if err := f.file(filepath.Join(dir, "msgs")); err != nil {
			return err
		}
	}
	if !known {
		// Without its description the stream would not be found again.
		for _, path := range []string{
			filepath.Join(dir, "meta.inf"), filepath.Join(dir, "meta.sum"), dir,
			f.dir, filepath.Dir(f.dir), filepath.Dir(filepath.Dir(f.dir)), // streams, account, jetstream
		} {
			if err := f.file(path); err != nil {
				return err
			}
		}
	}
	f.synced[stream] = now
	return nil
}

// blocks are the files with a stream's messages.
func blocks(dir string) (map[string]fs.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := make(map[string]fs.FileInfo, len(entries))
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".blk") {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[e.Name()] = info
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no message blocks", dir)
	}
	return files, nil
}

// file syncs a file or a directory.
func (f *storeFiles) file(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := f.fsync(file); err != nil {
		f.broken = fmt.Errorf("syncing %s: %w; mend the disk, then restart the broker", path, err)
	}
	return f.broken
}
