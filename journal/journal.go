package journal

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cbsd/cbsdmq"
)

// Options say where a journal is and who opens it.
type Options struct {
	Path    string // of the SQLite file; its directory is made, 0700
	Mode    string // "wal" (default), or "delete" for file systems without shared memory: then readers and the writer wait for each other
	State   string // directory on this host, outside the pool, for the high-water mark
	Host    string // this host's name, for people
	Boot    string // boot id
	Reserve int64  // bytes to set aside on the disk; 0 = 4 MB, negative = none
}

// A Journal is open and locked by this process. Its methods are for one
// goroutine at a time; what Reader and SaveOutput do may go on beside it.
type Journal struct {
	path    string
	state   string
	host    string
	boot    string
	lock    *os.File
	db      *sql.DB
	write   *sql.Conn
	read    *sql.DB
	stmt    statements
	reserve reserve
	slack   bool // in place of the reserve there is room within the file

	meta       Meta
	kept       int64 // bytes that Limits.Size bounds
	mode       string
	unscrubbed bool // secrets may be in the log
	strays     bool // there may be tombstones or aliases
	tombstones int  // how many
	past       *Past
	marked     mark // last written outside the pool

	migrated *Migration
}

// Meta identifies a pool's journal.
type Meta struct {
	Pool       string // random, made with the journal
	Generation uint64 // grows each time the journal went back in time
	Epoch      uint64 // with N: the number of a begin; 1
	N          uint64 // number of the last begin
	Commits    uint64 // grows with each commit
	HostID     string // the host that served the pool last
	Saved      time.Time
}

// Open opens the journal at o.Path, made if it does not exist, and locks it.
// Errors: *LockedError where another agent has it, *VersionError where a newer
// cbsdmq wrote it, *cbsdmq.Error with a hint for everything else
// that a person can mend: a file system that cannot hold it, a damaged file, a
// full or read-only disk.
func Open(ctx context.Context, o Options) (_ *Journal, err error) {
	if o.Mode == "" {
		o.Mode = "wal"
	}
	if o.Mode != "wal" && o.Mode != "delete" {
		return nil, cbsdmq.Errorf(cbsdmq.CodeBadConfig, "journal_mode", "%q is not known", o.Mode).
			WithHint(`"wal", or "delete" on a network file system`)
	}
	if o.Reserve == 0 {
		o.Reserve = reserveSize
	}
	path, err := prepareDirs(o)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		path: path, mode: o.Mode, state: o.State, host: o.Host, boot: o.Boot,
		reserve: reserve{path: path + ".reserve", size: o.Reserve},
	}
	if err := refuseStranger(path); err != nil {
		return nil, explain("opening journal", path, err)
	}
	if j.lock, err = acquire(path+".lock", o.Host); err != nil {
		return nil, explain("locking journal", path, err)
	}
	defer func() {
		if err != nil {
			_ = j.release() // err says why
		}
	}()
	// A statement that is interrupted would cost the connection, and nothing
	// here takes long.
	ctx = context.WithoutCancel(ctx)
	err = j.open(ctx, o.Mode)
	if noRoom(err) && j.reserve.free() {
		_ = j.closeFiles() // err says why
		err = j.open(ctx, o.Mode)
	}
	if err != nil {
		return nil, explain("opening journal", path, err)
	}
	j.reserve.keep()
	return j, nil
}

// prepareDirs makes the directories and returns the path of the journal
// without links, so that no second name of it escapes the lock.
func prepareDirs(o Options) (string, error) {
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return "", fmt.Errorf("finding the journal: %w", err)
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return "", explain("making the directory of", path, err)
	}
	if err := makeDir(o.State); err != nil {
		return "", explain("making", o.State, err)
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	if o.Mode == "wal" {
		if err := checkFilesystem(filepath.Dir(path)); err != nil {
			return "", err
		}
	}
	return path, nil
}

// Close gives the journal up. Work that was not committed is lost, which is
// what a crash would do.
func (j *Journal) Close() error {
	return errors.Join(j.SaveMark(), j.release())
}

func (j *Journal) release() error {
	return errors.Join(j.closeFiles(), j.lock.Close())
}

// Meta returns the journal's identity and counters.
func (j *Journal) Meta() Meta { return j.meta }

// Reader is the pool of read-only connections. After Close its answers are errors.
func (j *Journal) Reader() Reader { return Reader{db: j.read, path: j.path} }

// load reads the journal's identity, and finds out whether the journal went
// back in time.
func (j *Journal) load(ctx context.Context, fresh bool) error {
	host, err := hostID(j.state)
	if err != nil {
		return err
	}
	if fresh {
		seen, err := markAt(j.state, j.path)
		if err != nil {
			return err
		}
		j.meta = Meta{Pool: randomID(), Generation: 1, Epoch: 1, HostID: host, Saved: time.Now()}
		if err := j.create(ctx); err != nil {
			return err
		}
		if !seen.At.IsZero() {
			j.past = &Past{SeenAt: seen.At, Lost: true}
		}
		return nil
	}
	var past Past
	if err := j.readMeta(ctx, &past); err != nil {
		return err
	}
	seen, err := readMark(j.state, j.meta.Pool)
	if err != nil {
		return err
	}
	j.marked = seen
	j.marked.At = time.Time{}
	if copied(ctx, seen.Path, j.path, j.meta.Pool) {
		return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "journal", "a copy of %s", seen.Path).
			WithHint("if this is a pool of its own, move its copied journal away, %s and all beside it of that name; if the pool has moved here, move the old one away", j.path)
	}
	switch {
	case seen.newer(j.meta):
		m := j.meta
		m.Generation, m.N, m.HostID = max(seen.Generation, m.Generation), max(seen.N, m.N), host
		return j.wentBack(ctx, m, Past{JournalAt: m.Saved, SeenAt: seen.At})
	case j.meta.HostID != host:
		m := j.meta
		m.HostID = host
		return j.wentBack(ctx, m, Past{JournalAt: m.Saved, OtherHost: true})
	}
	if !past.JournalAt.IsZero() {
		err := j.write.QueryRowContext(ctx, "SELECT count(*) FROM job WHERE finished = 0 AND plan IS NOT NULL AND state = ?", string(cbsdmq.Held)).Scan(&past.Held)
		if err != nil {
			return err
		}
		if past.Held > 0 {
			j.past = &past
		}
	}
	return nil
}

func (j *Journal) readMeta(ctx context.Context, past *Past) error {
	var m Meta
	var generation, epoch, n, commits, saved, journalAt, seenAt int64
	err := j.write.QueryRowContext(ctx, "SELECT pool, generation, epoch, n, commits, host, saved, past_journal, past_seen FROM meta").
		Scan(&m.Pool, &generation, &epoch, &n, &commits, &m.HostID, &saved, &journalAt, &seenAt)
	if errors.Is(err, sql.ErrNoRows) {
		return damaged(j.path, "it does not say which pool's it is")
	}
	if err != nil {
		return err
	}
	m.Generation, m.Epoch, m.N, m.Commits, m.Saved = uint64(generation), uint64(epoch), uint64(n), uint64(commits), fromMicro(saved)
	j.meta = m
	*past = Past{JournalAt: fromMicro(journalAt), SeenAt: fromMicro(seenAt), OtherHost: seenAt == 0}
	return nil
}

func randomID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
