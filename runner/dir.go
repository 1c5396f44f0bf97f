package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Names in the runner's directory. Those of one protocol version are not
// touched by runners of another, except that each reads the marks from every
// log it finds.
var (
	socketName = fmt.Sprintf("runner-%d.sock", Protocol)
	lockName   = fmt.Sprintf("runner-%d.lock", Protocol)
	logName    = fmt.Sprintf("runner-%d.log", Protocol)
	outputName = fmt.Sprintf("output-%d", Protocol)
)

const (
	logPattern = "runner-*.log"
	errorsName = "runner.out" // standard error of a runner that Ensure started
)

// socketPathMax is the shorter of the two systems' sun_path, without its NUL
// (FreeBSD's sys/un.h).
const socketPathMax = 103

// socketPath is where the runner of dir listens.
func socketPath(dir string) (string, error) {
	path := filepath.Join(dir, socketName)
	if n := len(path); n > socketPathMax {
		return "", fmt.Errorf("runner directory: the path of the socket in %s has %d bytes, more than %d", dir, n, socketPathMax)
	}
	return path, nil
}

// makeDir creates dir with mode 0700 where it is missing, and refuses one in
// which anybody else could put files: they would be taken for the runner's.
func makeDir(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("runner directory %q is not an absolute path", dir)
	}
	if _, err := socketPath(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("runner directory: %w", err)
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("runner directory: %w", err)
	}
	if !fi.IsDir() {
		return fmt.Errorf("runner directory: %s is not a directory", dir)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("runner directory: %s belongs to uid %d, not %d", dir, st.Uid, os.Geteuid())
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("runner directory: others may write to %s (mode %#o); chmod 700 it", dir, fi.Mode().Perm())
	}
	return nil
}
