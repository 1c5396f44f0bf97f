package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

// A mark is how far this host has seen a pool's journal go. It is kept outside
// the pool, so that a rollback of the pool does not roll it back.
type mark struct {
	Generation uint64    `json:"generation"`
	N          uint64    `json:"n"`
	Commits    uint64    `json:"commits"`
	At         time.Time `json:"at"`
}

// newer reports whether the host has seen more than m says.
func (s mark) newer(m Meta) bool {
	if s.Generation != m.Generation {
		return s.Generation > m.Generation
	}
	return s.N > m.N || s.Commits > m.Commits
}

// Past says that the journal went back in time (a rolled back or restored
// pool), or came from another host without a lease. Jobs that it had queued
// are held: they may have been run since.
type Past struct {
	JournalAt time.Time // when the journal was last opened, by its own word
	SeenAt    time.Time // what this host saw; zero for another host's journal
	OtherHost bool
	Held      int // jobs
}

// String is for the log and for people.
func (p *Past) String() string {
	if p.OtherHost {
		return fmt.Sprintf("%d queued jobs held: the pool was last served by another host", p.Held)
	}
	return fmt.Sprintf("%d queued jobs held: journal is from %s, this host saw %s",
		p.Held, p.JournalAt.Format(time.DateTime), p.SeenAt.Format(time.DateTime))
}

// Past is nil unless the journal went back in time.
func (j *Journal) Past() *Past { return j.past }

// CheckMark compares the journal with the highest begin that the runner
// accepted for this pool: a journal that knows less went back in time.
func (j *Journal) CheckMark(ctx context.Context, n uint64) error {
	if n <= j.meta.N {
		return nil
	}
	j.past = &Past{JournalAt: j.meta.Saved, SeenAt: time.Now()}
	j.meta.N = n
	return j.wentBack(ctx)
}

// wentBack holds what is queued and begins a new generation.
func (j *Journal) wentBack(ctx context.Context) error {
	j.meta.Generation++
	res, err := j.write.ExecContext(ctx,
		"UPDATE job SET state = ? WHERE finished = 0 AND begun = 0", cbsdmq.Held)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	j.past.Held = int(n)
	return errors.Join(err, j.saveMeta(ctx), j.SaveMark())
}

// SaveMark writes down outside the pool how far the journal has come, where
// that has changed. It is not synced to disk: a power loss stops this host's
// runner too.
func (j *Journal) SaveMark() error {
	m := mark{Generation: j.meta.Generation, N: j.meta.N, Commits: j.meta.Commits}
	if m == j.synced {
		return nil
	}
	w := m
	w.At = time.Now()
	b, err := json.Marshal(w)
	if err != nil {
		return err
	}
	if err := writeFile(markPath(j.state, j.meta.Pool), b); err != nil {
		return fmt.Errorf("saving the high-water mark: %w", err)
	}
	j.synced = m
	return nil
}

func markPath(state, pool string) string { return filepath.Join(state, "pool-"+pool+".json") }

func readMark(state, pool string) (mark, error) {
	var m mark
	b, err := os.ReadFile(markPath(state, pool))
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("reading the high-water mark: %w", err)
	}
	// A half-written mark is no reason to refuse service: the runner has its own.
	_ = json.Unmarshal(b, &m)
	return m, nil
}

// hostID is a random name that this host keeps, whatever it is called.
func hostID(state string) (string, error) {
	name := filepath.Join(state, "hostid")
	b, err := os.ReadFile(name)
	if err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("reading the host's id: %w", err)
	}
	id := randomID()
	return id, writeFile(name, []byte(id+"\n"))
}

// writeFile replaces the file name as a whole.
func writeFile(name string, b []byte) error {
	tmp := name + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
