package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

// A mark is how far this host has seen a pool's journal go. It is kept outside
// the pool, so that a rollback of the pool does not roll it back.
type mark struct {
	Path       string    `json:"path"` // of the journal
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
// pool), came from another host, or was begun anew. Jobs that it had queued are
// held: they may have been run since.
type Past struct {
	JournalAt time.Time // of the journal's last commit
	SeenAt    time.Time // when this host saw it last; zero where OtherHost
	OtherHost bool      // the pool was last served by another host, or this host lost its state directory
	Lost      bool      // this host saw another journal in its place, which is gone: the ids of its jobs are forgotten
	Held      int       // jobs
}

// String is for the log and for people.
func (p *Past) String() string {
	switch {
	case p.Lost:
		return fmt.Sprintf("the journal is new, this host saw another in its place at %s: what came before is forgotten",
			p.SeenAt.Format(time.DateTime))
	case p.OtherHost:
		return fmt.Sprintf("%s: the pool was last served by another host, or with another state_dir, at %s",
			p.held(), p.JournalAt.Format(time.DateTime))
	}
	return fmt.Sprintf("%s: journal is from %s, this host saw %s",
		p.held(), p.JournalAt.Format(time.DateTime), p.SeenAt.Format(time.DateTime))
}

func (p *Past) held() string {
	if p.Held == 0 {
		return "no jobs were queued"
	}
	return fmt.Sprintf("%d queued jobs held", p.Held)
}

// Past is nil unless the journal went back in time: found by this Open, or by
// an earlier one as long as jobs are still held.
func (j *Journal) Past() *Past { return j.past }

// CheckMark compares the journal with the highest begin that the runner
// accepted for this pool: a journal that knows less went back in time. It is
// called before anything is accepted or begun.
func (j *Journal) CheckMark(ctx context.Context, n uint64) error {
	if n <= j.meta.N {
		return nil
	}
	m := j.meta
	m.N = n
	err := j.wentBack(context.WithoutCancel(ctx), m, Past{JournalAt: m.Saved, SeenAt: time.Now()})
	if err == nil {
		err = j.SaveMark()
	}
	return explain("holding the jobs of journal", j.path, err)
}

// wentBack holds what is queued and begins a new generation of m.
func (j *Journal) wentBack(ctx context.Context, m Meta, p Past) error {
	m.Generation++
	err := j.atomically(ctx, func() error {
		res, err := j.write.ExecContext(ctx, "UPDATE job SET state = ? WHERE finished = 0 AND plan IS NOT NULL AND begun = 0", string(cbsdmq.Held))
		if err != nil {
			return err
		}
		held, err := res.RowsAffected()
		if err != nil {
			return err
		}
		p.Held = int(held)
		if p.OtherHost {
			// The numbers were given to that host's runner. This host's must
			// not take them for begins that never reached it.
			if _, err := j.write.ExecContext(ctx, "UPDATE job SET epoch = 0, n = 0 WHERE finished = 0 AND plan IS NOT NULL AND begun > 0"); err != nil {
				return err
			}
		}
		_, err = j.write.ExecContext(ctx, "UPDATE meta SET generation = ?, n = ?, host = ?, past_journal = ?, past_seen = ?",
			int64(m.Generation), int64(m.N), m.HostID, micro(p.JournalAt), micro(p.SeenAt))
		return err
	})
	if err != nil {
		return err
	}
	j.meta, j.past = m, &p
	return nil
}

// SaveMark writes down outside the pool, synced, how far the journal has come,
// where that has changed since it was last called. A rollback to a state that
// is newer than that is not noticed here, but by the runner (see CheckMark) as
// soon as a command was begun since.
func (j *Journal) SaveMark() error {
	m := mark{Path: j.path, Generation: j.meta.Generation, N: j.meta.N, Commits: j.meta.Commits}
	if m == j.marked || j.meta.Pool == "" {
		return nil
	}
	w := m
	w.At = time.Now()
	b, err := json.Marshal(w)
	if err != nil {
		return err
	}
	name := markPath(j.state, j.meta.Pool)
	if err := replaceFile(name, b); err != nil {
		return explain("saving the high-water mark", name, err)
	}
	j.marked = m
	return nil
}

func markPath(state, pool string) string { return filepath.Join(state, "pool-"+pool+".json") }

func readMark(state, pool string) (mark, error) {
	var m mark
	b, err := os.ReadFile(markPath(state, pool))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, explain("reading the high-water mark", markPath(state, pool), err)
	}
	if json.Unmarshal(b, &m) != nil {
		// It was not us who wrote this. That is no reason to refuse service:
		// the runner has a mark of its own.
		m = mark{}
	}
	return m, nil
}

// markAt returns the newest mark of any journal at path; the zero mark where
// this host has never seen one there.
func markAt(state, path string) (newest mark, err error) {
	files, err := os.ReadDir(state)
	if err != nil {
		return newest, err
	}
	for _, f := range files {
		pool, isMark := strings.CutPrefix(f.Name(), "pool-")
		pool, isWhole := strings.CutSuffix(pool, ".json")
		if !isMark || !isWhole {
			continue
		}
		m, err := readMark(state, pool)
		if err != nil {
			return newest, err
		}
		if m.Path == path && m.At.After(newest.At) {
			newest = m
		}
	}
	return newest, nil
}

// copied reports whether the journal of pool at path is a copy of one at seen,
// another place of this host. Both would count begins under one name, and run
// the same queued jobs.
func copied(ctx context.Context, seen, path, pool string) bool {
	if seen == "" || seen == path {
		return false
	}
	a, err := os.Stat(seen)
	if err != nil {
		return false // it has moved
	}
	if b, err := os.Stat(path); err != nil || os.SameFile(a, b) {
		return false
	}
	db, err := openReader(seen, 1)
	if err != nil {
		return false // something else has taken its place
	}
	defer db.Close()
	var other string
	err = db.QueryRowContext(ctx, "SELECT pool FROM meta").Scan(&other)
	return err == nil && other == pool
}

// hostID is a random name that this host keeps, whatever it is called.
func hostID(state string) (string, error) {
	name := filepath.Join(state, "hostid")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		// Agents of several pools may be here for the first time at once.
		if err := createFile(name, []byte(randomID()+"\n")); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", explain("naming this host in", name, err)
		}
		b, err = os.ReadFile(name)
	}
	if err != nil {
		return "", explain("reading", name, err)
	}
	id := strings.TrimSpace(string(b))
	if id == "" {
		return "", cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "%s is empty", name).
			WithHint("remove it: the host gets a new id, and jobs queued in its pools are held until they are released")
	}
	return id, nil
}
