package journal

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/cbsd/cbsdmq"
)

// checkMax is the largest file that Open looks through for damage: it reads a
// few hundred MB in a second. Reader.Check is for larger ones.
const checkMax = 128 << 20

// open opens the database, made if it does not exist.
func (j *Journal) open(ctx context.Context, mode string) error {
	if err := prepareFile(j.path); err != nil {
		return err
	}
	var err error
	// The log is cut after a burst; while it is short it is overwritten in
	// place, which syncs faster than growing it. What is deleted in a page is
	// overwritten, for the sake of secrets. Pages are written once and seldom
	// read again: 512 KB of cache serve as well as the default of 2 MB.
	j.db, err = sql.Open("sqlite", source(j.path, "busy_timeout(5000)", "synchronous(FULL)", "journal_size_limit(16777216)",
		"secure_delete(fast)", "temp_store(memory)", "cache_size(-512)"))
	if err != nil {
		return err
	}
	// One connection, held until Close. If it broke, every Commit would fail;
	// database/sql does not put one without our settings in its place.
	j.db.SetMaxOpenConns(1)
	if j.write, err = j.db.Conn(ctx); err != nil {
		return err
	}
	version, err := identify(ctx, j.write, j.path, 1)
	if err != nil {
		return err
	}
	fresh := version == 0
	if !fresh {
		if err := checkDamage(ctx, j.write, j.path); err != nil {
			return err
		}
	}
	if err := setMode(ctx, j.write, mode); err != nil {
		return err
	}
	j.unscrubbed = !fresh // the agent before may have been killed
	if err := j.stmt.prepareTx(ctx, j.write); err != nil {
		return err
	}
	if !fresh && version < schemaVersion {
		if err := j.migrate(ctx, version); err != nil {
			return err
		}
	}
	if !fresh {
		// This changes nothing. A file that can only be read is found out here,
		// and not by the first job.
		if _, err := j.write.ExecContext(ctx, "UPDATE meta SET n = n WHERE one = 0"); err != nil {
			return err
		}
	}
	if err := j.load(ctx, fresh); err != nil {
		return err
	}
	// It is tried again: a full disk of the host must not keep a pool from
	// being served.
	if err := j.SaveMark(); err != nil && !Full(err) {
		return err
	}
	if err := j.stmt.prepare(ctx, j.write); err != nil {
		return err
	}
	if err := j.countKept(ctx); err != nil {
		return err
	}
	const strays = "SELECT count(*), count(*) > 0 OR EXISTS (SELECT 1 FROM alias) FROM tombstone"
	if err := j.write.QueryRowContext(ctx, strays).Scan(&j.tombstones, &j.strays); err != nil {
		return err
	}
	j.read, err = OpenReader(j.path)
	return err
}

// refuseStranger looks at a file that never was locked as a journal, so that a
// mistyped path leaves nothing beside somebody else's file. The header is
// described in sqlite.org/fileformat2.html: a magic string, and the application
// id at offset 68.
func refuseStranger(path string) error {
	if err := checkRegular(path); err != nil {
		return err
	}
	if _, err := os.Lstat(path + ".lock"); err == nil {
		return nil // identify looks; to open and close the file here would drop SQLite's locks
	}
	f, err := os.Open(path)
	if err != nil {
		return nil //nolint:nilerr // there is none, or open says why it cannot be read
	}
	defer f.Close()
	var head [72]byte
	switch n, err := io.ReadFull(f, head[:]); {
	case n <= 1:
		return nil
	case err == nil && bytes.HasPrefix(head[:], []byte("SQLite format 3\x00")):
		if id := binary.BigEndian.Uint32(head[68:]); id == applicationID || id == 0 {
			return nil
		}
	}
	return errStranger()
}

// checkRegular refuses what is there and no file: to open a pipe would not end.
func checkRegular(path string) error {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return checkLink(path)
	}
	if err != nil || fi.Mode().IsRegular() {
		return nil //nolint:nilerr // open says why it cannot be read
	}
	what := "not a file"
	if fi.IsDir() {
		what = "a directory"
	}
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "journal", "is %s", what).
		WithHint(`name a file with the key "journal"`)
}

// checkLink refuses a link that leads nowhere: a file made through it might lie
// under the mount point of what it should lead to.
func checkLink(path string) error {
	if target, err := os.Readlink(path); err == nil {
		return cbsdmq.Errorf(cbsdmq.CodeUnavailable, "", "a link to %s, which is not there", target).
			WithHint("mount what it leads to, or remove the link")
	}
	return nil
}

func errStranger() error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "journal", "not a journal of cbsdmq").
		WithHint(`name another file with the key "journal"`)
}

// closeFiles closes what open opened, also where it failed half way.
func (j *Journal) closeFiles() error {
	var errs []error
	if j.read != nil {
		errs = append(errs, j.read.Close())
	}
	if j.write != nil && !errors.Is(j.write.PingContext(context.Background()), sql.ErrConnDone) {
		// The driver does not bear a statement that is closed after its connection.
		j.stmt.close()
		errs = append(errs, j.write.Close())
	}
	j.stmt = statements{}
	if j.db != nil {
		errs = append(errs, j.db.Close())
	}
	j.write, j.db = nil, nil // j.read stays: whoever still reads gets an error
	return errors.Join(errs...)
}

// OpenReader opens a journal for queries only; the agent may hold it. Errors
// are those of Open; that there is none is fs.ErrNotExist. A journal with the
// schema of an older cbsdmq is a *VersionError: only Open brings it up.
func OpenReader(path string) (*sql.DB, error) { return openReader(path, schemaVersion) }

// openReader is OpenReader for a journal of any schema from oldest on.
func openReader(path string, oldest int) (_ *sql.DB, err error) {
	if err := checkRegular(path); err != nil {
		return nil, explain("reading journal", path, err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, cbsdmq.Errorf(cbsdmq.CodeNotFound, "", "no journal: %w", err).
			WithHint("an agent makes it when it first serves the pool")
	}
	// Not opened read-only: what an agent left that was killed may have to be
	// rolled back before it can be read.
	db, err := sql.Open("sqlite", source(path, "busy_timeout(5000)", "query_only(1)"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	defer func() {
		if err != nil {
			db.Close()
			err = explain("reading journal", path, err)
		}
	}()
	version, err := identify(context.Background(), db, path, oldest)
	if err == nil && version == 0 {
		err = cbsdmq.Errorf(cbsdmq.CodeNotFound, "", "it is empty").
			WithHint("an agent fills it when it first serves the pool")
	}
	return db, err
}

// source names a database to the driver. It is not made if it does not exist.
func source(path string, pragmas ...string) string {
	q := url.Values{"mode": {"rw"}, "_pragma": pragmas, "_error_rc": {"1"}}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// prepareFile makes the file, so that it never exists with wider permissions.
//
// SQLite takes a file of no length for a new database and throws the log beside
// it away: that is refused. An existing file is not opened here, because
// closing it would drop the locks that SQLite holds on it in this process.
func prepareFile(path string) error {
	fi, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		if err := checkLink(path); err != nil {
			return err
		}
	}
	if err == nil && fi.Size() > 1 { // SQLite takes one byte for none
		return nil
	}
	if wal, err := os.Stat(path + "-wal"); err == nil && wal.Size() > 0 {
		return damaged(path, "it is empty or missing, but its log is there").
			WithHint("put %s back beside its -wal, or move %[1]s-wal away too: then a new journal is begun, and what the old one knew is forgotten", path)
	}
	if err == nil {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), syncDir(filepath.Dir(path)))
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// identify tells a journal from other databases, before anything is written to
// it, and returns the version of its schema, from oldest on; 0: there is nothing
// in it yet.
func identify(ctx context.Context, c querier, path string, oldest int) (version int, err error) {
	var app, tables int
	for q, to := range map[string]*int{
		"PRAGMA application_id":              &app,
		"PRAGMA user_version":                &version,
		"SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := c.QueryRowContext(ctx, q).Scan(to); err != nil {
			return 0, err
		}
	}
	switch {
	case app == applicationID && oldest <= version && version <= schemaVersion:
		return version, nil
	case app == applicationID:
		return 0, &VersionError{Path: path, Version: version}
	case app == 0 && version == 0 && tables == 0:
		return 0, nil
	}
	return 0, errStranger()
}

// checkDamage looks for damage as long as that takes no time to speak of.
func checkDamage(ctx context.Context, c querier, path string) error {
	if err := checkLength(ctx, c, path); err != nil {
		return err
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Size() > checkMax {
		return err
	}
	return integrity(ctx, c, path)
}

// integrity looks through the whole database for damage.
func integrity(ctx context.Context, c querier, path string) error {
	rows, err := c.QueryContext(ctx, "PRAGMA integrity_check(3)")
	if err != nil {
		return err
	}
	defer rows.Close()
	var found []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return err
		}
		found = append(found, s)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(found) == 1 && found[0] == "ok" {
		return nil
	}
	return damaged(path, strings.Join(found, "; "))
}

// setMode chooses how commits are made, and makes sure of it: SQLite keeps
// silent where it cannot do as it was told.
func setMode(ctx context.Context, c *sql.Conn, mode string) error {
	var is string
	if err := c.QueryRowContext(ctx, "PRAGMA journal_mode = "+mode).Scan(&is); err != nil {
		return err
	}
	var synchronous int
	if err := c.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&synchronous); err != nil {
		return err
	}
	const full = 2
	if is != mode || synchronous != full {
		return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "journal_mode", "asked for %s and got %s with synchronous = %d", mode, is, synchronous).
			WithHint(`put the journal on a local disk (key "journal"), or set "journal_mode":"delete"`)
	}
	return nil
}
