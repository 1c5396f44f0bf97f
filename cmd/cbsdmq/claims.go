package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/config"
)

const (
	claimTime = 10 * time.Minute // after which a claim that nobody released is void
	claimsMax = 10_000
)

// claims are the names of guests that pools are making: until a guest is made,
// no file of CBSD has its name. Agents of one host share them by locked files in
// the state directory; a lock falls with its process.
type claims struct {
	mu sync.Mutex
	by map[string]claim // by guest
}

type claim struct {
	pool string
	at   time.Time
	lock *os.File // nil without a state directory
}

// claim takes the name of a guest for a pool, or says which other has it. What
// keeps the file from being written keeps nobody from making guests.
func (c *claims) claim(state, pool, guest string) (other string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	has, ok := c.by[guest]
	if ok && has.pool != pool && time.Since(has.at) < claimTime {
		return has.pool
	}
	if len(c.by) >= claimsMax {
		maps.DeleteFunc(c.by, func(_ string, has claim) bool {
			void := time.Since(has.at) >= claimTime
			if void {
				has.drop()
			}
			return void
		})
	}
	if c.by == nil {
		c.by = make(map[string]claim)
	}
	if len(c.by) >= claimsMax {
		return ""
	}
	has.pool, has.at = pool, time.Now()
	if has.lock == nil && state != "" {
		if has.lock, other = lockName(filepath.Join(namesDir(state), "guest."+guest), pool); other != "" {
			return other
		}
	}
	c.by[guest] = has
	return ""
}

// release gives the name back.
func (c *claims) release(pool, guest string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[guest].pool == pool {
		c.by[guest].drop()
		delete(c.by, guest)
	}
}

func (c claim) drop() {
	if c.lock != nil {
		os.Remove(c.lock.Name())
		c.lock.Close()
	}
}

func namesDir(state string) string { return filepath.Join(state, "names") }

// lockName locks the file and writes the pool's name into it, or says whose name
// it has. nil and "": it could not be tried.
func lockName(file, pool string) (lock *os.File, other string) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, ""
	}
	for range 10 { // until nobody removes it between open and lock
		f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, ""
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			defer f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, ""
			}
			text, _ := io.ReadAll(io.LimitReader(f, 64))
			return nil, cmp.Or(strings.TrimSpace(string(text)), "another pool")
		}
		mine, err1 := f.Stat()
		there, err2 := os.Stat(file)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			_ = f.Truncate(0)
			_, _ = f.WriteAt([]byte(pool+"\n"), 0)
			return f, ""
		}
		f.Close()
	}
	return nil, ""
}

// register notes where a pool of this host lies, for agents of other pools.
func register(state, pool, workdir string) error {
	if err := os.MkdirAll(namesDir(state), 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(namesDir(state), "pool."+pool), []byte(workdir+"\n"), 0o600)
}

// registered are the workdirs of the pools that agents of this host have served.
func registered(state string) map[string]string {
	files, _ := filepath.Glob(filepath.Join(namesDir(state), "pool.*"))
	workdirs := make(map[string]string)
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			workdirs[strings.TrimPrefix(filepath.Base(file), "pool.")] = strings.TrimSpace(string(text))
		}
	}
	return workdirs
}

// elsewhere names the pool, other than that of mine, that has a guest of that
// name or is making one: of this process, or of another agent of this host.
func (h *hosted) elsewhere(ctx context.Context, mine *config.Config, guest string) string {
	if pool := h.making.claim(mine.StateDir, mine.Pool, guest); pool != "" {
		return pool
	}
	pool := h.owner(ctx, mine, guest)
	if pool != "" {
		h.making.release(mine.Pool, guest)
	}
	return pool
}

// owner names the pool, other than that of mine, that has a guest of that name.
func (h *hosted) owner(ctx context.Context, mine *config.Config, guest string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, pool := range h.pools {
		if name != mine.Pool {
			if _, found, err := pool.Guest(ctx, guest); err == nil && found {
				return name
			}
		}
	}
	for name, workdir := range registered(mine.StateDir) {
		if _, here := h.pools[name]; here || name == mine.Pool || workdir == mine.CBSDEnv {
			continue
		}
		if _, err := os.Stat(filepath.Join(workdir, "nc.inventory")); err != nil {
			continue // not imported, or gone
		}
		pool, err := cbsd.Open(ctx, cbsd.Config{CBSD: mine.CBSD, Workdir: workdir, RunDir: mine.RunDir})
		if err != nil {
			continue
		}
		_, found, err := pool.Guest(ctx, guest)
		pool.Close()
		if err == nil && found {
			return name
		}
	}
	return ""
}

// enter makes a pool known to the others until leave is called.
func (h *hosted) enter(name string, pool *cbsd.Pool) (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pools == nil {
		h.pools = make(map[string]*cbsd.Pool)
	}
	h.pools[name] = pool
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.pools, name)
	}
}
