package runner

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/calm"
	"github.com/cbsd/cbsdmq/internal/proc"
)

// ErrInUse is returned by Serve where another runner serves the directory.
var ErrInUse = errors.New("another runner serves this directory")

// Serve is the runner. It returns when ctx is cancelled, or at once where it
// cannot begin: ErrInUse where another one serves cfg.Dir. Where the directory
// is removed, so that no agent can find it any more, it accepts no more starts
// and returns an error when the last command has ended.
//
// Commands that run when it returns go on, but nobody will know their exit
// status: the next runner reports them as orphans.
//
// Serve needs a process of its own, which should end with it: it sets umask,
// GOMAXPROCS and the handling of signals.
func Serve(ctx context.Context, cfg Config) error {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := makeDir(cfg.Dir); err != nil {
		return err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	setProcess()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s, err := newServer(cfg, log)
	if err != nil {
		return err
	}
	l, err := listen(filepath.Join(cfg.Dir, socketName))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	log.Info("runner serves", "dir", cfg.Dir, "pid", os.Getpid(), "kept", s.count, "orphans", len(s.orphans))

	for range startWorkers {
		go s.work()
	}
	go s.reap()
	go s.introduceAll()
	go s.keep(cmp.Or(cfg.every, sizesEvery), lock, end)
	s.serve(ctx, l)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrote(s.events.flush())
	if n := len(s.children); n > 0 {
		log.Warn("runner ends and leaves commands running: their exit status will be lost", "running", n)
	} else {
		log.Info("runner ends")
	}
	if err := context.Cause(ctx); errors.Is(err, errEvicted) {
		return fmt.Errorf("%w: %s", err, cfg.Dir)
	}
	return nil
}

// serve accepts agents until ctx is cancelled, and ends when all are gone.
func (s *server) serve(ctx context.Context, l net.Listener) {
	var agents sync.WaitGroup
	defer agents.Wait()
	defer close(s.closed)
	defer l.Close()
	for {
		nc, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return
		}
		if err != nil {
			// Out of descriptors, most likely: some come back when commands end.
			s.log.Error("cannot accept an agent", "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
			continue
		}
		c := newConn(s, nc)
		agents.Go(func() {
			stop := context.AfterFunc(ctx, c.close)
			defer stop()
			c.serve()
		})
	}
}

// newServer brings the state of earlier runners back.
func newServer(cfg Config, log *slog.Logger) (*server, error) {
	boot, err := proc.BootID()
	if err != nil {
		return nil, err
	}
	null, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", os.DevNull, err)
	}
	slots, err := openSlots(filepath.Join(cfg.Dir, outputName))
	if err != nil {
		return nil, err
	}
	s := &server{
		log:      log,
		boot:     boot,
		id:       rand.Text(),
		null:     null,
		queue:    make(chan *run, maxRuns),
		closed:   make(chan struct{}),
		born:     make(chan struct{}, 1),
		children: make(map[int]*run),
		orphans:  make(map[*run]bool),
		pools:    make(map[string]*pool),
		events:   &eventLog{path: filepath.Join(cfg.Dir, logName)},
		slots:    slots,
	}
	s.forked = sync.NewCond(&s.mu)
	version := strings.Join(strings.Fields(cfg.Version), "-")
	if version == "" {
		version = "-"
	}
	s.hello = fmt.Sprintf("cbsdmq-runner %d %s %s %d %s\n", Protocol, s.id, s.boot, os.Getpid(), version)
	if err := s.replay(cfg.Dir); err != nil {
		return nil, err
	}
	if err := s.events.compact(s.snapshotLog()); err != nil {
		if err := s.events.reopen(); err != nil {
			return nil, err
		}
		s.events.add(s.snapshotLog())
		s.wrote(err)
	}
	return s, nil
}

// inheritedMax bounds the descriptors that whoever started the process may have
// left open.
const inheritedMax = 1024

// setProcess makes of the process what commands should inherit.
func setProcess() {
	calm.Monitor()
	// A thread that forks keeps its P until execve, which may hang: there has to be
	// another one.
	if runtime.NumCPU() == 1 && os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(2)
	}
	syscall.Umask(0o022)
	// Commands inherit only what they are given, whatever was open when this
	// process was started.
	for fd := 3; fd < inheritedMax; fd++ {
		unix.CloseOnExec(fd)
	}
	// A signal that is handled here has its default disposition in commands, even
	// where this process was started with it ignored. These are the ones that Go
	// does not handle by itself then.
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGHUP, syscall.SIGPIPE,
		syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	if signal.Ignored(syscall.SIGINT) {
		signal.Notify(ignored, syscall.SIGINT)
	}
}

var errEvicted = errors.New("the runner's directory was removed")

// evicted reports whether lock, held by this process, is not the one any more
// that others will find.
func evicted(lock *os.File) bool {
	held, err := lock.Stat()
	if err != nil {
		return false
	}
	found, err := os.Lstat(lock.Name())
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(held, found)
}

// lockDir makes this process the only runner of its protocol in dir.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the runner's directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		text := make([]byte, 20)
		n, _ := f.ReadAt(text, 0)
		f.Close()
		pid := strings.TrimSpace(string(text[:n]))
		return nil, cbsdmq.Errorf(cbsdmq.CodeHeld, "", "%w: %s (pid %s)", ErrInUse, dir, pid).
			WithHint("an agent may have started it: `kill %s` ends it, once `cbsdmq jobs --state running` lists nothing: jobs that run would end unknown", pid)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	// The pid is for people, a full disk no reason to end.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	return f, nil
}

// listen makes the socket anew. The caller holds the lock, so one that is there
// is a dead runner's.
func listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("making the runner's socket: %w", err)
	}
	// The path may be another runner's when this one ends.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("making the runner's socket: %w", err)
	}
	return l, nil
}
