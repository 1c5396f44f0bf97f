// Package journal is the memory of a pool's agent: what was accepted, begun
// and finished, and which replies are owed. It lies in the pool and moves with
// it.
//
// There is one writer. It puts many changes into one Batch and one Commit,
// which returns when they are on stable storage; readers use connections of
// their own and never wait for it. The file is SQLite, so that a person can
// look into it with sqlite3.
package journal

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/cbsd/cbsdmq"
)

// InlineOutput is the longest output in bytes that is kept in the row of its
// job; longer output lies in a file beside the journal. A reply never carries
// more than this.
const InlineOutput = cbsdmq.ReplyOutput

// reserveSize is what is set aside on the disk so that the ends of running
// commands can be written when everything else is full.
const reserveSize = 4 << 20

// Options say where a journal is and who opens it.
type Options struct {
	Path  string // of the SQLite file; its directory is made, 0700
	Mode  string // "wal" (default), or "delete" for file systems without shared memory
	State string // directory on this host, outside the pool, for the high-water mark
	Host  string // this host's name, for people
	Boot  string // boot id
}

// A Journal is open and locked by this process.
type Journal struct {
	path   string
	state  string
	host   string
	boot   string
	lock   *os.File
	write  *sql.Conn
	db     *sql.DB
	read   *sql.DB
	stmt   statements
	meta   Meta
	past   *Past
	hasRes bool
	synced mark // last written outside the pool
}

// Meta identifies a pool's journal.
type Meta struct {
	Pool       string // random, made with the journal
	Generation uint64 // grows each time the journal went back in time
	Epoch      uint64 // of the lease under which the pool is served; 1 without a cluster
	N          uint64 // number of the last begin
	Commits    uint64 // grows with each commit
	HostID     string // the host that served the pool last
	Saved      time.Time
}

// Open opens the journal at o.Path, made if it does not exist, and locks it.
// Errors: *LockedError where another agent has it, *VersionError where another
// version of cbsdmq wrote it, *cbsdmq.Error with a hint where the file system
// cannot hold it.
func Open(ctx context.Context, o Options) (_ *Journal, err error) {
	dir := filepath.Dir(o.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the journal's directory: %w", err)
	}
	if err := os.MkdirAll(o.State, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	if o.Mode == "" {
		o.Mode = "wal"
	}
	if o.Mode == "wal" {
		if err := checkFilesystem(dir); err != nil {
			return nil, err
		}
	}
	j := &Journal{path: o.Path, state: o.State, host: o.Host, boot: o.Boot}
	if j.lock, err = acquire(o.Path+".lock", o.Host); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.Close()
		}
	}()
	if err := j.open(ctx, o.Mode); err != nil {
		return nil, fmt.Errorf("opening journal %s: %w", o.Path, err)
	}
	if err := j.load(ctx); err != nil {
		return nil, fmt.Errorf("reading journal %s: %w", o.Path, err)
	}
	j.keepReserve()
	return j, nil
}

func (j *Journal) open(ctx context.Context, mode string) (err error) {
	// The file is made first so that it never exists with wider permissions.
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	f.Close()
	pragma := url.Values{"_pragma": {"busy_timeout(5000)", "journal_mode(" + mode + ")", "synchronous(FULL)"}}
	j.db, err = sql.Open("sqlite", "file:"+(&url.URL{Path: j.path}).EscapedPath()+"?"+pragma.Encode())
	if err != nil {
		return err
	}
	j.db.SetMaxOpenConns(1)
	if j.write, err = j.db.Conn(ctx); err != nil {
		return err
	}
	if err := migrate(ctx, j.write, j.path); err != nil {
		return err
	}
	if j.read, err = OpenReader(j.path); err != nil {
		return err
	}
	return j.stmt.prepare(ctx, j.write)
}

// OpenReader opens a journal for queries only; the agent may hold it.
func OpenReader(path string) (*sql.DB, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	pragma := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)", "query_only(1)"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+pragma.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	return db, nil
}

// load reads the meta rows, makes them in a new journal, and finds out whether
// the journal went back in time.
func (j *Journal) load(ctx context.Context) error {
	m, err := readMeta(ctx, j.write)
	if err != nil {
		return err
	}
	host, err := hostID(j.state)
	if err != nil {
		return err
	}
	if m.Pool == "" {
		m.Pool, m.Epoch, m.HostID = randomID(), 1, host
	}
	j.meta = m
	seen, err := readMark(j.state, m.Pool)
	if err != nil {
		return err
	}
	switch {
	case seen.newer(m):
		j.past = &Past{JournalAt: m.Saved, SeenAt: seen.At}
		j.meta.Generation = max(seen.Generation, m.Generation)
		j.meta.N = max(seen.N, m.N)
	case m.HostID != host:
		j.past = &Past{JournalAt: m.Saved, OtherHost: true}
	}
	j.meta.HostID = host
	if j.past == nil {
		return j.saveMeta(ctx)
	}
	return j.wentBack(ctx)
}

// Close gives the journal up. Work that was not committed is lost, which is
// what a crash would do.
func (j *Journal) Close() error {
	var errs []error
	j.stmt.close()
	if j.read != nil {
		errs = append(errs, j.read.Close())
	}
	if j.write != nil {
		errs = append(errs, j.write.Close())
	}
	if j.db != nil {
		errs = append(errs, j.db.Close())
	}
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
	}
	return errors.Join(errs...)
}

// Meta returns the journal's identity and counters.
func (j *Journal) Meta() Meta { return j.meta }

// Reader is the pool of read-only connections.
func (j *Journal) Reader() Reader { return Reader{db: j.read, path: j.path} }

func readMeta(ctx context.Context, c *sql.Conn) (Meta, error) {
	var m Meta
	rows, err := c.QueryContext(ctx, "SELECT key, value FROM meta")
	if err != nil {
		return m, err
	}
	defer rows.Close()
	for rows.Next() {
		var k, v string
		if err := rows.Scan(&k, &v); err != nil {
			return m, err
		}
		n, _ := strconv.ParseUint(v, 10, 64)
		switch k {
		case "pool":
			m.Pool = v
		case "generation":
			m.Generation = n
		case "epoch":
			m.Epoch = n
		case "n":
			m.N = n
		case "commits":
			m.Commits = n
		case "host":
			m.HostID = v
		case "saved":
			m.Saved = time.UnixMicro(int64(n))
		}
	}
	return m, rows.Err()
}

func (j *Journal) saveMeta(ctx context.Context) error {
	j.meta.Saved = time.Now()
	for k, v := range map[string]string{
		"pool":       j.meta.Pool,
		"generation": strconv.FormatUint(j.meta.Generation, 10),
		"epoch":      strconv.FormatUint(j.meta.Epoch, 10),
		"n":          strconv.FormatUint(j.meta.N, 10),
		"commits":    strconv.FormatUint(j.meta.Commits, 10),
		"host":       j.meta.HostID,
		"saved":      strconv.FormatInt(j.meta.Saved.UnixMicro(), 10),
	} {
		if _, err := j.write.ExecContext(ctx,
			"INSERT INTO meta VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", k, v); err != nil {
			return err
		}
	}
	return nil
}

func randomID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Full reports whether err means that the disk has no room.
func Full(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_FULL
}

// keepReserve sets space aside, where there is any. Random bytes, because a
// file system that compresses would give nothing back for zeros.
func (j *Journal) keepReserve() {
	name := j.path + ".reserve"
	if fi, err := os.Stat(name); err == nil && fi.Size() == reserveSize {
		j.hasRes = true
		return
	}
	b := make([]byte, reserveSize)
	rand.Read(b)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		os.Remove(name)
		return
	}
	j.hasRes = true
}

// freeReserve gives the reserved space back and reports whether there was any.
func (j *Journal) freeReserve() bool {
	had := j.hasRes
	j.hasRes = false
	return os.Remove(j.path+".reserve") == nil && had
}

// RestoreReserve sets the reserve aside again after the disk was full. It is
// called from time to time while all is well.
func (j *Journal) RestoreReserve() {
	if !j.hasRes {
		j.keepReserve()
	}
}
