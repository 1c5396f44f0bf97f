package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A stage is the directory of one round and what has to be undone after it.
type stage struct {
	*testserver.Stage
	dir string

	mu  sync.Mutex
	log *os.File // what the nemesis did
	at  time.Time
}

func newStage(dir string) (*stage, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the directory of the run: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "nemesis.log"))
	if err != nil {
		return nil, fmt.Errorf("making the log of the run: %w", err)
	}
	s := &stage{dir: dir, log: log, at: time.Now()}
	s.Stage = testserver.NewStage(dir, s.note)
	return s, nil
}

// close undoes everything. With keep the directory stays.
func (s *stage) close(keep bool) {
	s.Close()
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
