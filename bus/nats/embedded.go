package nats

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/cbsd/cbsdmq"
)

// Where the embedded broker is if the configuration does not say.
const (
	DefaultEmbeddedDir    = "/var/db/cbsdmq/nats"
	DefaultEmbeddedListen = "127.0.0.1:" + DefaultPort
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

// syncInterval is how long the embedded broker may leave what it has stored in
// memory, where nobody has asked for a sync.
const syncInterval = 10 * time.Second

// Embedded is a NATS server with JetStream in this process. What a bus.Conn has
// put there is synced to disk before it is confirmed; what other programs put,
// within syncInterval unless they ask for it (syncSubject). Only those who can
// read the file token in its directory can use it.
type Embedded struct {
	lock  *os.File
	dir   string
	host  string
	addr  string // of the listener, for clients
	token string
	log   *serverLog

	mu     sync.Mutex // of what revive makes anew
	server *natsserver.Server
	syncer *syncer

	stopReviving func()
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
	if err := privateDir(dir, "embedded_dir"); err != nil {
		return nil, err
	}
	lock, err := lockDir(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := unclustered(dir); err != nil {
		return nil, err
	}
	// What a broker that crashed has left may be somebody else's by now.
	if err := removeFile(filepath.Join(dir, addressFile)); err != nil {
		return nil, err
	}
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
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Embedded{lock: lock, dir: dir, host: host, token: token, log: &serverLog{log: cfg.Log, what: "embedded broker", hurt: make(chan string, 1)}}
	if err := e.run(ctx, port); err != nil {
		return nil, err
	}
	e.stopReviving = revive(e.log, dir, e.restart)
	return e, nil
}

// run makes the server and lets clients find it.
func (e *Embedded) run(ctx context.Context, port int) error {
	s, err := natsserver.NewServer(&natsserver.Options{
		ServerName:             serverName,
		Host:                   e.host,
		Port:                   port,
		Authorization:          e.token,
		JetStream:              true,
		StoreDir:               e.dir,
		SyncInterval:           syncInterval,
		DisableJetStreamBanner: true,
		NoSigs:                 true,
	})
	if err != nil {
		return err
	}
	s.SetLoggerV2(e.log, false, false, false)
	var y *syncer
	if err = start(ctx, s, e.log); err == nil {
		y, err = startSyncer(s, e.token, e.dir)
	}
	if err == nil {
		if e.addr == "" {
			e.addr = clientAddress(s.Addr().String())
		}
		err = writeFile(filepath.Join(e.dir, addressFile), e.addr)
	}
	if err != nil {
		if y != nil {
			y.close()
		}
		s.Shutdown()
		s.WaitForShutdown()
		return err
	}
	e.mu.Lock()
	e.server, e.syncer = s, y
	e.mu.Unlock()
	return nil
}

// stop ends the server, if there is one.
func (e *Embedded) stop() error {
	err := removeFile(filepath.Join(e.dir, addressFile))
	e.mu.Lock()
	s, y := e.server, e.syncer
	e.server, e.syncer = nil, nil
	e.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
		y.close()
	}
	return err
}

// current is the server, or nil while it is made anew.
func (e *Embedded) current() *natsserver.Server {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.server
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

// Close stops the broker. What it has confirmed is on disk already.
func (e *Embedded) Close() error {
	e.stopReviving()
	return errors.Join(e.stop(), e.lock.Close())
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
		return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "embedded_listen", "%w", err).
			WithHint("give it an address of this host that nothing else listens at; FreeBSD's `sockstat -l` says who does")
	}
	return l.Close()
}

// privateDir makes dir, or sees that nobody else can look into it. key is where
// the configuration names it.
func privateDir(dir, key string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return isPrivate(dir, key)
}

func isPrivate(dir, key string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return cbsdmq.Errorf(cbsdmq.CodeBadConfig, key, "%s is open to others (%#o); it has to be a directory of its own with mode 0700", dir, fi.Mode().Perm()).
			WithHint("chmod 700 %s", dir)
	}
	return nil
}

// CheckEmbedded says what would keep an embedded broker from being started, and
// changes nothing. It is for one that does not run.
func CheckEmbedded(dir, listen string) error {
	dir = embeddedDir(dir)
	var errs []error
	if err := isPrivate(dir, "embedded_dir"); err == nil {
		errs = append(errs, unclustered(dir))
	} else if !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	host, port, err := splitListen(listen)
	if err == nil && port > 0 {
		err = portFree(host, port)
	}
	return errors.Join(append(errs, err)...)
}
