package nats

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq/bus"
)

// Files in the directory of an embedded broker, beside what JetStream keeps.
const (
	lockFile    = "lock"
	tokenFile   = "token"   // the secret of all its clients
	addressFile = "address" // host:port, while it runs
)

// lockTries is how often, 20 ms apart, a lock is asked for that a client may
// hold for a moment, to see whether the broker does.
const lockTries = 5

// newEmbeddedClient is the driver for the broker of cfg.EmbeddedDir: e if that
// is in this process, or whatever process the directory speaks of at the
// moment of dialling.
func newEmbeddedClient(cfg bus.Config, e *Embedded) *Driver {
	dir := embeddedDir(cfg.EmbeddedDir)
	return &Driver{
		addr:     "embedded:" + dir,
		embedded: true,
		targets: func() ([]target, error) {
			if e != nil {
				s := e.current()
				if s == nil {
					return nil, errNoBroker(dir)
				}
				return []target{{addr: e.addr, login: tokenLogin(e.token), process: s}}, nil
			}
			addr, token, err := findBroker(dir)
			if err != nil {
				return nil, err
			}
			return []target{{addr: addr, login: tokenLogin(token)}}, nil
		},
	}
}

// findBroker reads what the broker of dir has left for its clients. The token
// must not get to whoever listens at the address of a broker that is gone, so
// the broker has to be there, which the lock shows.
func findBroker(dir string) (addr, token string, err error) {
	lock, err := os.Open(filepath.Join(dir, lockFile))
	if err == nil {
		err = flock(lock, syscall.LOCK_SH)
		lock.Close()
	}
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return "", "", errNoBroker(dir)
	case errors.Is(err, fs.ErrPermission):
		return "", "", &bus.Permanent{Err: fmt.Errorf("the embedded broker is for those who may read its directory: %w", err)}
	case !errors.Is(err, ErrLocked):
		return "", "", err
	}
	if err := unclustered(dir); err != nil {
		return "", "", &bus.Permanent{Err: err}
	}
	if addr, err = readLine(filepath.Join(dir, addressFile)); err == nil {
		token, err = readLine(filepath.Join(dir, tokenFile))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", errNoBroker(dir) // it is about to start, or to end
	}
	return addr, token, err
}

func errNoBroker(dir string) error {
	return fmt.Errorf("no embedded broker runs in %s; an agent or \"cbsdmq broker\" starts it", dir)
}

// lockDir makes this process the one that runs the broker of dir.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		if err = flock(f, syscall.LOCK_EX); err == nil {
			return f, nil
		}
		if try == lockTries || !errors.Is(err, ErrLocked) {
			f.Close()
			return nil, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		}
	}
}

// flock does not wait; the error is ErrLocked if somebody has the lock.
func flock(f *os.File, how int) error {
	err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return nil
}

// loadToken reads the token of dir, or makes it.
func loadToken(dir string) (string, error) {
	path := filepath.Join(dir, tokenFile)
	token, err := readLine(path)
	if err == nil {
		if token == "" {
			return "", fmt.Errorf("%s is empty; a new one is made if it is removed", path)
		}
		return token, os.Chmod(path, 0o600)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var secret [32]byte
	rand.Read(secret[:]) // never fails
	token = hex.EncodeToString(secret[:])
	return token, writeFile(path, token)
}

func readLine(path string) (string, error) {
	b, err := os.ReadFile(path)
	return strings.TrimSpace(string(b)), err
}

// writeFile puts a line into path, for the owner alone; whoever reads path sees
// all of it or none.
func writeFile(path, line string) error {
	tmp := path + ".new"
	if err := removeFile(tmp); err != nil {
		return err
	}
	if err := os.WriteFile(tmp, []byte(line+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Running reports whether the broker of an embedded_dir runs, here or in
// another process.
func Running(dir string) bool {
	_, _, err := findBroker(embeddedDir(dir))
	return err == nil
}
