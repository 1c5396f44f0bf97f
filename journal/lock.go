package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Holder is who has a journal open.
type Holder struct {
	Host  string    `json:"host"`
	PID   int       `json:"pid"`
	Since time.Time `json:"since"`
}

// acquire locks the file name for this process. The lock falls with the
// process, however it ends; the text in the file says who holds it.
func acquire(name, host string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
		e := &LockedError{Path: name}
		if err := json.NewDecoder(f).Decode(&e.Holder); err != nil {
			e.Holder = Holder{} // it is being written: the holder stays unnamed
		}
		return nil, e
	}
	b, err := json.Marshal(Holder{Host: host, PID: os.Getpid(), Since: time.Now().Truncate(time.Second)})
	if err != nil {
		f.Close()
		return nil, err
	}
	// On a full disk the lock must not fail for its text: then it has none,
	// which is better than that of the holder before.
	if _, err := f.WriteAt(append(b, '\n'), 0); err != nil {
		b = nil
	}
	if err := f.Truncate(int64(len(b))); err != nil {
		f.Close()
		return nil, fmt.Errorf("writing %s: %w", name, err)
	}
	return f, nil
}

// flock takes the lock, or finds it taken for longer than Served needs to look.
func flock(f *os.File) (err error) {
	for range 10 {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
