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
CREATE UNIQUE INDEX job_key ON job(sender, key) WHERE key <> '';
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
	instance TEXT NOT NULL               -- the seq of the first job that may be from it, a space, its name
) STRICT, WITHOUT ROWID;

CREATE TABLE tombstone (                 -- cancelled before they came
	id TEXT PRIMARY KEY,
	at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
