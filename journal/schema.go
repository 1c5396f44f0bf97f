package journal

import (
	"context"
	"database/sql"
	"fmt"
)

// schemaVersion is kept in PRAGMA user_version.
const schemaVersion = 1

// Times are microseconds since 1970, 0 = not yet. Booleans are 0 or 1.
const schema = `
CREATE TABLE meta (
	key   TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE job (
	seq      INTEGER PRIMARY KEY,    -- order of acceptance
	id       TEXT NOT NULL UNIQUE,   -- the client's ULID, or the broker's number of a legacy job
	ident    TEXT NOT NULL UNIQUE,   -- what makes a second delivery the same job
	sender   TEXT NOT NULL,
	key      TEXT NOT NULL,          -- the sender's own name for the work, '' = none
	bus      TEXT NOT NULL,          -- where it came from
	command  TEXT NOT NULL,
	guest    TEXT NOT NULL,
	plan     BLOB,                   -- what to run, NULL once the result was dropped
	flags    INTEGER NOT NULL,       -- see Flags
	state    TEXT NOT NULL,
	accepted INTEGER NOT NULL,
	expires  INTEGER NOT NULL,
	begun    INTEGER NOT NULL DEFAULT 0,
	finished INTEGER NOT NULL DEFAULT 0,
	epoch    INTEGER NOT NULL DEFAULT 0, -- with n: the start's number at the runner
	n        INTEGER NOT NULL DEFAULT 0,
	host     TEXT NOT NULL DEFAULT '',   -- where it was begun
	boot     TEXT NOT NULL DEFAULT '',
	before   BLOB,                   -- what was read of the guest before a change
	result   BLOB,                   -- the last reply without its output
	output   BLOB,                   -- stdout where it is short; NULL = in a file, or dropped
	outsize  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX job_open ON job(seq) WHERE finished = 0;
CREATE INDEX job_finished ON job(finished) WHERE finished > 0;
CREATE UNIQUE INDEX job_key ON job(sender, key) WHERE key <> '';

CREATE TABLE address (
	job      INTEGER NOT NULL,       -- job.seq
	bus      TEXT NOT NULL,
	tube     TEXT NOT NULL,
	foreign_id INTEGER NOT NULL,     -- 1 = named after an id of the broker, so it dies with the broker's id space
	state    INTEGER NOT NULL,       -- see AddressState
	put      INTEGER NOT NULL DEFAULT 0, -- when the broker confirmed the last reply
	put_id   INTEGER NOT NULL DEFAULT 0, -- and under which id
	PRIMARY KEY (job, bus, tube)
) STRICT, WITHOUT ROWID;
CREATE INDEX address_owed ON address(job) WHERE state = 0;
CREATE INDEX address_sent ON address(put) WHERE state = 1;

CREATE TABLE alias (                 -- further ids of a job that was submitted again under its key
	id  TEXT PRIMARY KEY,
	job INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_job ON alias(job);

CREATE TABLE tombstone (             -- cancelled before they came
	id TEXT PRIMARY KEY,
	at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
`

// migrate makes the tables of a new journal, and refuses one of another
// version: there is none older than schemaVersion.
func migrate(ctx context.Context, c *sql.Conn, path string) error {
	var v int
	if err := c.QueryRowContext(ctx, "PRAGMA user_version").Scan(&v); err != nil {
		return err
	}
	switch v {
	case schemaVersion:
		return nil
	case 0:
	default:
		return &VersionError{Path: path, Version: v}
	}
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return err
	}
	return tx.Commit()
}
