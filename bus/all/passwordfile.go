package all

import (
	"context"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/nats"
)

// passwordMax bounds a password.
const passwordMax = 4096

// withFile is a driver whose password is in a file. It is read for each
// connection: a password that was changed is used from the next one on.
type withFile struct {
	kind string
	cfg  bus.Config
	last atomic.Pointer[bus.Driver] // that dialled last
}

// openWithFile makes the driver with some password, to see that the rest of the
// section is right.
func openWithFile(kind string, cfg bus.Config) (bus.Driver, error) {
	w := &withFile{kind: kind, cfg: cfg}
	d, err := w.with("to be read")
	if err != nil {
		return nil, err
	}
	w.last.Store(&d)
	return w, nil
}

func (w *withFile) with(password string) (bus.Driver, error) {
	cfg := w.cfg
	cfg.PasswordFile = ""
	if w.kind == "nats" && cfg.User == "" {
		cfg.Token = password
	} else {
		cfg.Password = password
	}
	if w.kind == "nats" {
		return nats.New(cfg)
	}
	return client(w.kind, cfg)
}

func (w *withFile) Dial(ctx context.Context) (bus.Conn, error) {
	password, err := readPassword(w.cfg.PasswordFile)
	if err != nil {
		return nil, &bus.Permanent{Err: err}
	}
	d, err := w.with(password)
	if err != nil {
		return nil, &bus.Permanent{Err: err}
	}
	w.last.Store(&d)
	return d.Dial(ctx)
}

func (w *withFile) Caps() bus.Caps { return (*w.last.Load()).Caps() }
func (w *withFile) Addr() string   { return (*w.last.Load()).Addr() }

// readPassword returns what is in the file, without a newline at its end.
func readPassword(file string) (string, error) {
	wrong := func(format string, args ...any) *cbsdmq.Error {
		return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "password_file", format, args...)
	}
	// A pipe without a writer would never be opened.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", wrong("%w", err).WithHint("a file with the password in one line, which only its user can read")
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", wrong("%w", err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
		return "", wrong("%s: everybody can read or write it (mode %04o)", file, info.Mode().Perm()).WithHint("chmod o= %s", file)
	}
	text, err := io.ReadAll(io.LimitReader(f, passwordMax+1))
	if err != nil {
		return "", wrong("%w", err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	switch {
	case len(text) > passwordMax:
		return "", wrong("%s: longer than %d bytes", file, passwordMax)
	case password == "":
		return "", wrong("%s is empty", file).WithHint("put the password into it, in one line")
	case strings.ContainsAny(password, "\n\r\x00"):
		return "", wrong("%s has more than one line", file).WithHint("the password alone belongs into it")
	}
	return password, nil
}
