package testserver

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// A Stage stands for a test in a program that is none: it is a testing.TB as far
// as the servers of this package, and proxies to them, need one. What ends a test
// panics with a value that Guard takes.
type Stage struct {
	testing.TB // of the methods that are not here nobody makes use
	dir        string
	log        func(format string, args ...any)

	// Launcher is the command that servers are started by, as taskset; nil: none.
	Launcher []string

	// Long says that servers run for minutes: what takes time to become fast may.
	Long bool

	mu   sync.Mutex
	undo []func()
	n    int
}

// broken is a stage that cannot go on.
type broken struct{ error }

// NewStage returns a stage with its temporary files in dir.
func NewStage(dir string, log func(format string, args ...any)) *Stage {
	return &Stage{dir: dir, log: log}
}

// Guard calls f and returns what a stage was broken by.
func Guard(f func() error) (err error) {
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

// Helper does nothing.
func (s *Stage) Helper() {}

// Fatalf ends what Guard has called, as do Fatal and Skipf.
func (s *Stage) Fatalf(format string, args ...any) { panic(broken{fmt.Errorf(format, args...)}) }

// Fatal is for Fatalf as in package testing.
func (s *Stage) Fatal(args ...any) { s.Fatalf("%s", fmt.Sprint(args...)) }

// Skipf is Fatalf: there is nothing that could be left out.
func (s *Stage) Skipf(format string, args ...any) { s.Fatalf(format, args...) }

// Logf writes into the log of the program.
func (s *Stage) Logf(format string, args ...any) { s.log(format, args...) }

// Failed is false: what has failed has ended.
func (s *Stage) Failed() bool { return false }

// TempDir makes a directory that nothing else uses.
func (s *Stage) TempDir() string {
	s.mu.Lock()
	s.n++
	dir := filepath.Join(s.dir, fmt.Sprintf("tmp%d", s.n))
	s.mu.Unlock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		s.Fatalf("making a directory: %v", err)
	}
	return dir
}

// Cleanup has f called by Close, the last first.
func (s *Stage) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undo = append(s.undo, f)
}

// Close undoes everything.
func (s *Stage) Close() {
	s.mu.Lock()
	undo := s.undo
	s.undo = nil
	s.mu.Unlock()
	for _, f := range slices.Backward(undo) {
		_ = Guard(func() error { f(); return nil })
	}
}
