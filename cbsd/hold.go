package cbsd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// held waits until a job in the other pool keeps the name of the guest.
func (t *transfer) held(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, transferWait)
	defer cancel()
	for said := false; ; {
		unlock, err := lockFile(t.from.transferFile(t.guest, "held"))
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil
		case err != nil:
			return err
		}
		unlock()
		if !said {
			t.say("waiting for %s of %s in %s to be kept free", HoldGuest, t.guest, t.to.cfg.Workdir)
			said = true
		}
		select {
		case <-time.After(transferPoll):
		case <-ctx.Done():
			return fmt.Errorf("no job keeps the name %s free in %s: nothing was changed", t.guest, t.to.cfg.Workdir)
		}
	}
}

// hold keeps the name of a guest free in the pool p, by being a job of it, while
// the guest is moved there.
func (p *Pool) hold(ctx context.Context, guest, from string, out io.Writer) error {
	source := &Pool{cfg: Config{Workdir: from}}
	if err := os.MkdirAll(filepath.Dir(source.transferFile(guest, "held")), 0o700); err != nil {
		return err
	}
	lock := source.transferFile(guest, "lock")
	before := fileState(lock).Modified
	unlock, err := takeLock(ctx, source.transferFile(guest, "held"))
	if err != nil {
		return fmt.Errorf("%s is held for another transfer: %w", guest, err)
	}
	defer unlock()
	fmt.Fprintf(out, "%s is kept free for its transfer from %s\n", guest, from)
	came := false
	for begun := time.Now(); ; {
		end, err := lockFile(lock)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			came = true
		case err != nil:
			return err
		default:
			came = came || exists(lock) && !before.IsZero() && !fileState(lock).Modified.Equal(before)
			before = fileState(lock).Modified
			end()
			if came {
				return nil
			}
			if time.Since(begun) > transferWait {
				return fmt.Errorf("no transfer of %s came within %s", guest, transferWait)
			}
		}
		select {
		case <-time.After(transferPoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// takeLock is lockFile for who wants to have it, not to see whether it is taken.
func takeLock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := takeLockFile(ctx, path)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

func takeLockFile(ctx context.Context, path string) (f *os.File, err error) {
	for range lockTries {
		if f, err = openLock(path); !errors.Is(err, unix.EWOULDBLOCK) {
			return f, err
		}
		select {
		case <-time.After(transferPoll / 4):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return f, err
}

// lockFile takes a lock that falls with the process. The error is EWOULDBLOCK
// where somebody has it.
func lockFile(path string) (unlock func(), err error) {
	f, err := openLock(path)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// openLock returns the file that is locked, for processes that are to keep it so.
func openLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
