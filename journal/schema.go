package journal

import (
	"context"
	"fmt"
)

// schemaVersion is kept in PRAGMA user_version, applicationID ("cbmq") in
// PRAGMA application_id.
const (
	schemaVersion = 2
	applicationID = 0x63626d71
)

// Times are microseconds since 1970, 0 = not yet. Booleans are 0 or 1. Of a
// row, what is long comes last: SQLite reads it from the front.
//
// plan is NULL once a job's output was dropped, and never before it has ended;
// so each row is in one of job_kept (open jobs first: they have finished = 0)
// and job_dropped.
const schema = `
CREATE TABLE meta (
	one          INTEGER PRIMARY KEY CHECK (one = 1),
	pool         TEXT NOT NULL,
	generation   INTEGER NOT NULL,
	epoch        INTEGER NOT NULL,
	n            INTEGER NOT NULL,
	commits      INTEGER NOT NULL,
	host         TEXT NOT NULL,
	saved        INTEGER NOT NULL,           -- last commit
	past_journal INTEGER NOT NULL DEFAULT 0, -- last commit before the journal went back in time
	past_seen    INTEGER NOT NULL DEFAULT 0  -- what the host had seen by then, 0 = another host's journal
) STRICT;

CREATE TABLE job (
	seq      INTEGER PRIMARY KEY,        -- order of acceptance
	id       TEXT NOT NULL UNIQUE,       -- the client's ULID, or the broker's number of a legacy job
	ident    TEXT NOT NULL,              -- what makes a second delivery the same job
	sender   TEXT NOT NULL,
	key      TEXT NOT NULL,              -- the sender's own name for the work, '' = none
	bus      TEXT NOT NULL,              -- where it came from
	command  TEXT NOT NULL,
	guest    TEXT NOT NULL,
	signer   TEXT NOT NULL DEFAULT '',   -- whose key signed it, '' = not signed
	signkey  TEXT NOT NULL DEFAULT '',   -- the public key of that, in base64
	flags    INTEGER NOT NULL,           -- see Flags
	state    TEXT NOT NULL,
	accepted INTEGER NOT NULL,
	expires  INTEGER NOT NULL,
	begun    INTEGER NOT NULL,
	finished INTEGER NOT NULL DEFAULT 0,
	epoch    INTEGER NOT NULL,           -- with n: the start's number at the runner
	n        INTEGER NOT NULL,
	host     TEXT NOT NULL,              -- where it was begun
	boot     TEXT NOT NULL,
	outsize  INTEGER NOT NULL DEFAULT 0, -- bytes of stdout
	result   BLOB,                       -- the last reply without its output
	before   BLOB,                       -- what was read of the guest before a change
	plan     BLOB,                       -- what to run
	output   BLOB                        -- stdout where it is short; NULL = in a file, or dropped
) STRICT;
CREATE UNIQUE INDEX job_ident ON job(ident) WHERE ident <> id;
CREATE UNIQUE INDEX job_key ON job(signer, sender, key) WHERE key <> '';
CREATE INDEX job_kept ON job(finished) WHERE plan IS NOT NULL;
CREATE INDEX job_dropped ON job(finished) WHERE plan IS NULL;

CREATE TABLE address (
	job        INTEGER NOT NULL,         -- job.seq
	bus        TEXT NOT NULL,
	tube       TEXT NOT NULL,
	foreign_id INTEGER NOT NULL,         -- 1 = named after an id of the broker, so it dies with the broker's id space
	state      INTEGER NOT NULL,         -- see AddressState
	put        INTEGER NOT NULL,         -- when the broker confirmed the last reply
	put_id     INTEGER NOT NULL,         -- and under which id
	PRIMARY KEY (job, bus, tube)
) STRICT, WITHOUT ROWID;
CREATE INDEX address_owed ON address(job) WHERE state = 0;

CREATE TABLE alias (                     -- further ids of a job that was submitted again under its key
	id  TEXT PRIMARY KEY,
	job INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_job ON alias(job);

CREATE TABLE broker (                    -- which incarnation of a broker the addresses of today are of
	bus      TEXT PRIMARY KEY,
	instance TEXT NOT NULL,              -- its name
	since    INTEGER NOT NULL            -- job.seq of the first one that may be from it
) STRICT, WITHOUT ROWID;

CREATE TABLE tombstone (                 -- cancelled before they came
	id TEXT PRIMARY KEY,
	at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE pause (                     -- nothing that changes them is begun
	guest  TEXT PRIMARY KEY,             -- '' = the whole pool
	reason TEXT NOT NULL,
	who    TEXT NOT NULL,
	at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE verdict (                   -- what a person found out about a job that ended unknown
	job    INTEGER PRIMARY KEY,          -- job.seq
	state  TEXT NOT NULL,                -- done or failed
	reason TEXT NOT NULL,
	who    TEXT NOT NULL,
	at     INTEGER NOT NULL
) STRICT;

CREATE TABLE act (                       -- what people did beside submitting jobs
	seq    INTEGER PRIMARY KEY,
	at     INTEGER NOT NULL,
	who    TEXT NOT NULL,
	what   TEXT NOT NULL,                -- pause, resume, resolve, cancel, release, drop
	guest  TEXT NOT NULL,                -- '' = none, or the whole pool
	job    TEXT NOT NULL,                -- job.id, '' = none
	reason TEXT NOT NULL
) STRICT;
CREATE INDEX act_at ON act(at);
`

// create makes the tables of a new journal, and its identity from j.meta.
func (j *Journal) create(ctx context.Context) error {
	return j.atomically(ctx, func() error {
		for _, q := range []string{
			schema,
			fmt.Sprintf("PRAGMA application_id = %d", applicationID),
			fmt.Sprintf("PRAGMA user_version = %d", schemaVersion),
		} {
			if _, err := j.write.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		_, err := j.write.ExecContext(ctx, "INSERT INTO meta (one, pool, generation, epoch, n, commits, host, saved) VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
			j.meta.Pool, int64(j.meta.Generation), int64(j.meta.Epoch), int64(j.meta.N), int64(j.meta.Commits), j.meta.HostID, micro(j.meta.Saved))
		return err
	})
}
