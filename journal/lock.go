package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq"
)

// A Holder is who has a journal open.
type Holder struct {
	Host  string    `json:"host"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

// A LockedError says that another agent serves the pool.
type LockedError struct {
	Path   string
	Holder Holder
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("the pool is served by another agent: pid %d on %s since %s (lock %s)",
		e.Holder.PID, e.Holder.Host, e.Holder.Since.Format(time.DateTime), e.Path)
}

// Unwrap gives the error its code and a way out.
func (e *LockedError) Unwrap() error {
	return cbsdmq.Errorf(cbsdmq.CodeHeld, "", "locked").
		WithHint("stop that agent first, or serve the pool from one configuration only")
}

// A VersionError says that the journal was written by a newer cbsdmq.
type VersionError struct {
	Path    string
	Version int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has schema version %d, this cbsdmq knows %d", e.Path, e.Version, schemaVersion)
}

// Unwrap gives the error its code and a way out.
func (e *VersionError) Unwrap() error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "journal", "of another version").
		WithHint("install the cbsdmq that wrote it, or a newer one")
}

// acquire locks the file name for this process. The lock falls with the
// process, however it ends; the text in the file says who holds it.
func acquire(name, host string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the journal's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
		e := &LockedError{Path: name}
		_ = json.NewDecoder(f).Decode(&e.Holder) // unreadable: the holder stays unnamed
		return nil, e
	}
	b, err := json.Marshal(Holder{Host: host, PID: os.Getpid(), Since: time.Now().Truncate(time.Second)})
	if err != nil {
		f.Close()
		return nil, err
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, append(b, '\n'))); err != nil {
		f.Close()
		return nil, fmt.Errorf("writing %s: %w", name, err)
	}
	return f, nil
}

func writeAt(f *os.File, b []byte) error {
	_, err := f.WriteAt(b, 0)
	return err
}

func badFilesystem(dir, kind string) error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "journal", "%s is on %s, where SQLite's write-ahead log is not safe", dir, kind).
		WithHint(`put the journal on a local disk (key "journal"), or set "journal_mode":"delete"`)
}
