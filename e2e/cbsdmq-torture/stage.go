package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// A stage is the directory of one round and what has to be undone after it. It
// is a testing.TB as far as the test servers and the fault proxy need one;
// Fatalf panics with a broken, which guard takes.
type stage struct {
	testing.TB // of the methods that are not here nobody makes use
	dir        string

	mu   sync.Mutex
	undo []func()
	log  *os.File // what the nemesis did
	at   time.Time
	n    int
}

// broken is a bench that cannot go on.
type broken struct{ error }

func newStage(dir string) (*stage, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the directory of the run: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "nemesis.log"))
	if err != nil {
		return nil, fmt.Errorf("making the log of the run: %w", err)
	}
	return &stage{dir: dir, log: log, at: time.Now()}, nil
}

// guard calls f and returns what it was broken by.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			b, ok := p.(broken)
			if !ok {
				panic(p)
			}
			err = b.error
		}
	}()
	return f()
}

func (s *stage) Helper() {}

func (s *stage) Fatalf(format string, args ...any) { panic(broken{fmt.Errorf(format, args...)}) }
func (s *stage) Fatal(args ...any)                 { panic(broken{fmt.Errorf("%s", fmt.Sprint(args...))}) }
func (s *stage) Skipf(format string, args ...any)  { s.Fatalf(format, args...) }
func (s *stage) Logf(format string, args ...any)   { s.note(format, args...) }
func (s *stage) Failed() bool                      { return false }

func (s *stage) TempDir() string {
	s.mu.Lock()
	s.n++
	dir := filepath.Join(s.dir, fmt.Sprintf("tmp%d", s.n))
	s.mu.Unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.Fatalf("making a directory: %v", err)
	}
	return dir
}

// Cleanup has f called when the round is over, the last first.
func (s *stage) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undo = append(s.undo, f)
}

// close undoes everything. With keep the directory stays.
func (s *stage) close(keep bool) {
	s.mu.Lock()
	undo := s.undo
	s.undo = nil
	s.mu.Unlock()
	for _, f := range slices.Backward(undo) {
		_ = guard(func() error { f(); return nil })
	}
	s.log.Close()
	if !keep {
		os.RemoveAll(s.dir)
	}
}

// note writes a line into the log of the run.
func (s *stage) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	fmt.Fprintf(s.log, "%s +%.3fs %s\n", now.Format("15:04:05.000000"), now.Sub(s.at).Seconds(), fmt.Sprintf(format, args...))
}

// say writes a line for people.
func say(w io.Writer, format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
