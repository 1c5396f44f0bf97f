package nats

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// synced records what was synced, by name below the store, and how large it was.
type synced struct {
	mu    sync.Mutex
	sizes map[string]int64
	calls map[string]int
	hook  func() error
}

func (s *synced) fsync(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if s.hook != nil {
		if err := s.hook(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sizes[f.Name()] = info.Size()
	s.calls[f.Name()]++
	return f.Sync()
}

// grouped is an embedded broker whose syncs are recorded, and a connection to it.
func grouped(t *testing.T, hook func() error) (*Embedded, *synced, bus.Conn) {
	t.Helper()
	cfg := bus.Config{URI: "embedded", EmbeddedDir: filepath.Join(t.TempDir(), "nats"), EmbeddedListen: "127.0.0.1:0"}
	e, err := StartEmbedded(t.Context(), EmbeddedConfig{Dir: cfg.EmbeddedDir, Listen: cfg.EmbeddedListen})
	if err != nil {
		t.Fatalf("starting: %v", err)
	}
	t.Cleanup(func() { e.Close() })
	s := &synced{sizes: map[string]int64{}, calls: map[string]int{}, hook: hook}
	e.syncer.files.fsync = s.fsync // nobody has asked yet
	c, err := newEmbeddedClient(cfg, nil).Dial(t.Context())
	if err != nil {
		t.Fatalf("dialling: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return e, s, c
}

// Where the server keeps its messages is its own affair: when a Put returns, all
// of it has to be synced, wherever it is.
func TestSyncedFiles(t *testing.T) {
	e, s, c := grouped(t, nil)
	box := bus.Tube{Name: "reply7", Kind: bus.Mailbox}
	for range 3 {
		for i, r := range c.Put(t.Context(),
			bus.Message{Tube: bus.Tube{Name: "jobs"}, Body: []byte("a job that is looked for")},
			bus.Message{Tube: box, Body: []byte("a reply that is looked for"), TTL: time.Hour},
		) {
			if r.Err != nil {
				t.Fatalf("message %d: %v", i, r.Err)
			}
		}
		found := 0
		s.mu.Lock()
		err := filepath.WalkDir(e.dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if !strings.Contains(string(b), "looked for") {
				return nil
			}
			found++
			if s.sizes[path] != int64(len(b)) {
				t.Errorf("%s has %d bytes, synced are %d", path, len(b), s.sizes[path])
			}
			for dir := filepath.Dir(path); dir != e.dir; dir = filepath.Dir(dir) {
				if _, ok := s.sizes[dir]; !ok {
					t.Errorf("the directory %s was not synced", dir)
				}
			}
			return nil
		})
		s.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if found != 2 {
			t.Fatalf("messages are in %d files, expected 2", found)
		}
	}
}

// Those who wait while the disk is busy share the next sync.
func TestSyncsAreShared(t *testing.T) {
	var puts atomic.Int64
	busy, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	e, s, c := grouped(t, func() error {
		once.Do(func() { close(busy); <-free })
		return nil
	})
	var wg sync.WaitGroup
	put := func() {
		defer puts.Add(1)
		if r := c.Put(t.Context(), bus.Message{Tube: bus.Tube{Name: "jobs"}, Body: []byte("x")}); r[0].Err != nil {
			t.Errorf("putting: %v", r[0].Err)
		}
	}
	wg.Go(put)
	<-busy
	const n = 50
	for range n {
		wg.Go(put)
	}
	// All are stored, and have asked for a sync, when their requests wait.
	testserver.Eventually(t, 20*time.Second, func() error {
		wait, _, err := e.syncer.asked.Pending()
		if err == nil && wait != n {
			err = fmt.Errorf("%d requests wait, want %d", wait, n)
		}
		return err
	})
	if got := puts.Load(); got != 0 {
		t.Errorf("%d messages were confirmed before they were synced", got)
	}
	close(free)
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, calls := range s.calls {
		if strings.HasSuffix(name, ".blk") && calls > 2 {
			t.Errorf("%s was synced %d times for %d messages", name, calls, n+1)
		}
	}
}

// What the disk refuses is not confirmed; nor is what comes after, as a system
// may tell of a lost write only once.
func TestSyncFails(t *testing.T) {
	broken := atomic.Bool{}
	_, _, c := grouped(t, func() error {
		if broken.Load() {
			return errors.New("input/output error")
		}
		return nil
	})
	put := func() error {
		return c.Put(t.Context(), bus.Message{Tube: bus.Tube{Name: "jobs"}, Body: []byte("x")})[0].Err
	}
	if err := put(); err != nil {
		t.Fatalf("putting: %v", err)
	}
	broken.Store(true)
	if err := put(); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Fatalf("putting on a broken disk: %v", err)
	}
	broken.Store(false)
	if err := put(); err == nil || !strings.Contains(err.Error(), "restart the broker") {
		t.Fatalf("putting after that: %v", err)
	}
}

func TestNotAStream(t *testing.T) {
	f := newStoreFiles(t.TempDir())
	for _, name := range []string{"", ".", "..", "a/b", "../../etc", "nosuch"} {
		if err := f.sync(name); err == nil {
			t.Errorf("%q: no error", name)
		}
	}
}
