package nats

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/cbsd/cbsdmq/bus"
)

// Where the embedded broker is if the configuration does not say.
const (
	DefaultEmbeddedDir    = "/var/db/cbsdmq/nats"
	DefaultEmbeddedListen = "127.0.0.1:" + DefaultPort
)

// Files in the directory of an embedded broker, beside what JetStream keeps.
const (
	lockFile    = "lock"
	tokenFile   = "token"   // the secret of all its clients
	addressFile = "address" // host:port, while it runs
)

// ErrLocked: another process, or another part of this one, runs the broker of
// that directory.
var ErrLocked = errors.New("the broker of this directory is already running")

// EmbeddedConfig says which broker to run.
type EmbeddedConfig struct {
	Dir    string       // its own, mode 0700, made if it is not there; "" = DefaultEmbeddedDir
	Listen string       // host:port for other processes, port 0 = any that is free; "" = DefaultEmbeddedListen
	Log    *slog.Logger // its warnings and errors; nil = no log
}

// Embedded is a NATS server with JetStream in this process. It syncs each
// message to disk before it confirms it. Only those who can read the file token
// in its directory can use it.
type Embedded struct {
	server *natsserver.Server
	lock   *os.File
	dir    string
	addr   string
	token  string
}

// StartEmbedded runs the broker of cfg.Dir and returns when it can be used; ctx
// is for the start alone. The error is ErrLocked if it runs already.
func StartEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Embedded, error) {
	e, err := startEmbedded(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("starting the embedded broker: %w", err)
	}
	return e, nil
}

func startEmbedded(ctx context.Context, cfg EmbeddedConfig) (_ *Embedded, err error) {
	dir, err := filepath.Abs(embeddedDir(cfg.Dir))
	if err != nil {
		return nil, err
	}
	host, port, err := splitListen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	token, err := loadToken(dir)
	if err != nil {
		return nil, err
	}
	if port > 0 {
		if err := portFree(host, port); err != nil {
			return nil, err
		}
	} else {
		port = natsserver.RANDOM_PORT
	}
	s, err := natsserver.NewServer(&natsserver.Options{
		ServerName:             "cbsdmq",
		Host:                   host,
		Port:                   port,
		Authorization:          token,
		JetStream:              true,
		StoreDir:               dir,
		SyncAlways:             true,
		DisableJetStreamBanner: true,
		NoSigs:                 true,
	})
	if err != nil {
		return nil, err
	}
	log := &serverLog{log: cfg.Log}
	s.SetLoggerV2(log, false, false, false)
	if err := start(ctx, s, log); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, err
	}
	addr := clientAddress(s.Addr().String())
	if err := writeFile(filepath.Join(dir, addressFile), addr); err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, err
	}
	return &Embedded{server: s, lock: lock, dir: dir, addr: addr, token: token}, nil
}

// start runs s until it serves.
func start(ctx context.Context, s *natsserver.Server, log *serverLog) error {
	done := make(chan struct{})
	go func() {
		s.Start() // returns
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := log.fatal(); err != nil {
		return err
	}
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("the server does not get ready")
	}
	return nil
}

// Addr is host:port for clients in other processes.
func (e *Embedded) Addr() string { return e.addr }

// Close stops the broker and returns when all is on disk.
func (e *Embedded) Close() error {
	e.server.Shutdown()
	e.server.WaitForShutdown()
	err := os.Remove(filepath.Join(e.dir, addressFile))
	return errors.Join(err, e.lock.Close())
}

// newEmbeddedClient is the driver for the broker of cfg.EmbeddedDir: e if that
// is in this process, or whatever process the directory speaks of at the
// moment of dialling.
func newEmbeddedClient(cfg bus.Config, e *Embedded) *Driver {
	dir := embeddedDir(cfg.EmbeddedDir)
	return &Driver{
		addr:     "embedded:" + dir,
		embedded: true,
		endpoints: func() ([]endpoint, error) {
			if e != nil {
				return []endpoint{{addr: e.addr, login: tokenLogin(e.token), process: e.server}}, nil
			}
			addr, err := readFile(dir, addressFile)
			if err != nil {
				return nil, err
			}
			token, err := readFile(dir, tokenFile)
			if err != nil {
				return nil, err
			}
			return []endpoint{{addr: addr, login: tokenLogin(token)}}, nil
		},
	}
}

// readFile reads what the broker has left for its clients.
func readFile(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("no embedded broker runs in %s; an agent or \"cbsdmq broker\" starts it", dir)
	case errors.Is(err, fs.ErrPermission):
		return "", &bus.Permanent{Err: fmt.Errorf("the embedded broker is for those who may read %s: %w", filepath.Join(dir, name), err)}
	case err != nil:
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}

func embeddedDir(dir string) string {
	if dir == "" {
		return DefaultEmbeddedDir
	}
	return filepath.Clean(dir)
}

func splitListen(listen string) (host string, port int, err error) {
	if listen == "" {
		listen = DefaultEmbeddedListen
	}
	host, p, err := net.SplitHostPort(listen)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("embedded_listen %q: host:port expected", listen)
	}
	return host, port, nil
}

// clientAddress is how to reach a listener that may listen everywhere.
func clientAddress(listening string) string {
	host, port, err := net.SplitHostPort(listening)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.To4() == nil {
			host = "::1"
		}
		return net.JoinHostPort(host, port)
	}
	return listening
}

func portFree(host string, port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("key embedded_listen: %w", err)
	}
	return l.Close()
}

// privateDir makes dir, or sees that nobody else can look into it.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("key embedded_dir: %s is open to others (%#o); it has to be a directory of its own with mode 0700", dir, fi.Mode().Perm())
	}
	return nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return f, nil
}

// loadToken reads the token of dir, or makes it.
func loadToken(dir string) (string, error) {
	path := filepath.Join(dir, tokenFile)
	b, err := os.ReadFile(path)
	if err == nil {
		token := strings.TrimSpace(string(b))
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
	token := hex.EncodeToString(secret[:])
	return token, writeFile(path, token)
}

// writeFile puts a line into path, for the owner alone; whoever reads path sees
// all of it or none.
func writeFile(path, line string) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(tmp, []byte(line+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
