package runner

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq"
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
		return "", badDir("give it a shorter path", "the path of the socket in %s has %d bytes, more than %d", dir, n, socketPathMax)
	}
	return path, nil
}

func badDir(hint, format string, args ...any) error {
	e := cbsdmq.Errorf(cbsdmq.CodeUnavailable, "run_dir", format, args...)
	e.Hint = hint
	return e
}

const whose = `name a directory of our own with the key "run_dir" or "state_dir"`

// makeDir creates dir with mode 0700 where it is missing, and refuses one in
// which anybody else could put files: they would be taken for the runner's.
func makeDir(dir string) error {
	if _, err := socketPath(dir); err != nil {
		return err
	}
	if !filepath.IsAbs(dir) {
		return badDir(whose, "%q is not an absolute path", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return badDir(whose, "%w", err)
	}
	return checkOwner(dir)
}

func checkOwner(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return badDir(whose, "%w", err)
	}
	if !fi.IsDir() {
		return badDir(whose, "%s is not a directory", dir)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return badDir(whose, "%s belongs to uid %d, not %d", dir, st.Uid, os.Geteuid())
	}
	if fi.Mode().Perm()&0o022 != 0 {
		return badDir("chmod 700 "+dir, "others may write to %s (mode %#o)", dir, fi.Mode().Perm())
	}
	return nil
}

// CheckDir says what would keep a runner from using dir, and changes nothing.
func CheckDir(dir string) error {
	if _, err := socketPath(dir); err != nil {
		return err
	}
	for at := dir; ; at = filepath.Dir(at) {
		fi, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at):
			continue
		case err != nil:
			return badDir(whose, "%w", err)
		case at == dir:
			return checkOwner(dir)
		case !fi.IsDir():
			return badDir(whose, "%s is not a directory", at)
		}
		if err := unix.Access(at, unix.W_OK); err != nil {
			return badDir(whose, "%s cannot be made in %s: %w", dir, at, err)
		}
		return nil
	}
}
