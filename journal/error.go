package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/cbsd/cbsdmq"
)

// A LockedError says that another agent serves the pool.
type LockedError struct {
	Path   string // of the lock
	Holder Holder // zero where it could not be read
}

func (e *LockedError) Error() string {
	who := ""
	if e.Holder.PID != 0 {
		who = fmt.Sprintf(": pid %d on %s since %s", e.Holder.PID, e.Holder.Host, e.Holder.Since.Format(time.DateTime))
	}
	return "the pool is served by another agent" + who
}

// Unwrap gives the error its code and a way out.
func (e *LockedError) Unwrap() error {
	return cbsdmq.Errorf(cbsdmq.CodeHeld, "", "locked").
		WithHint("stop that agent first, or serve the pool from one configuration only")
}

// A VersionError says that another version of cbsdmq wrote the journal.
type VersionError struct {
	Path    string // of the journal
	Version int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("it has schema version %d, this cbsdmq knows %d", e.Version, schemaVersion)
}

// Unwrap gives the error its code and a way out.
func (e *VersionError) Unwrap() error {
	err := cbsdmq.Errorf(cbsdmq.CodeBadConfig, "journal", "of another version")
	if e.Version < schemaVersion {
		return err.WithHint("an older cbsdmq wrote it: start the agent of this version, which brings it up after making a copy")
	}
	return err.WithHint("install the cbsdmq that wrote it, or a newer one; `ls %s.v*` shows copies of before it changed the schema", e.Path)
}

// Full reports whether err means that the disk or its quota has no room.
func Full(err error) bool {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return true
	}
	code := sqliteCode(err)
	return code&0xff == sqlite3.SQLITE_FULL || code == sqlite3.SQLITE_IOERR_SHMSIZE
}

// noRoom reports whether err may mean Full: SQLite does not tell an exceeded
// quota from other failed writes.
func noRoom(err error) bool { return Full(err) || sqliteCode(err) == sqlite3.SQLITE_IOERR_WRITE }

// sqliteCode is the extended result code in err (sqlite.org/rescode.html), 0
// where there is none.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// explain says what was being done to path when err happened, and gives err a
// code and a way out unless it has them. It is nil for nil.
func explain(doing, path string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s %s: %w", doing, path, err)
	if _, ok := errors.AsType[*cbsdmq.Error](err); ok {
		return err
	}
	unavailable := func(format string, args ...any) error {
		return cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "%w", err).WithHint(format, args...)
	}
	if Full(err) {
		return unavailable("make room on the file system of %s, or raise its quota", path)
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		return unavailable("the agent's user must be able to write %s and its directory: see their owner and mode, and whether the file system is read-only", path)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return unavailable(`the keys "journal" and "state_dir" name files and directories that the agent can make`)
	}
	switch sqliteCode(err) & 0xff {
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return unavailable("the agent's user must be able to write %s and its directory: see their owner and mode, and whether the file system is read-only", path)
	case sqlite3.SQLITE_NOTADB:
		return unavailable(`if it is no journal, name another file with the key "journal"; else %s`, damagedHint(path))
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR: // or a statement of ours does not fit what it says of its tables
		return unavailable("%s", damagedHint(path))
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL:
		return unavailable("another program holds %s: end it, `fuser %[1]s` names it", path)
	case sqlite3.SQLITE_IOERR:
		return unavailable("look at the disk and the quota of %s: dmesg, zpool status", path)
	}
	return err
}

// damaged says that the journal at path cannot be trusted.
func damaged(path, why string) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "damaged: %s", why).WithHint("%s", damagedHint(path))
}

func damagedHint(path string) string {
	return fmt.Sprintf("keep a copy; `sqlite3 %[1]s 'PRAGMA integrity_check'` says more, and `sqlite3 %[1]s .recover | sqlite3 NEW` saves what can be read. "+
		"Or go back to a snapshot. Or move %[1]s, %[1]s-wal and %[1]s-shm away: then a new journal is begun, and what the old one knew is forgotten", path)
}
