package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Migration is what Open did to a journal that an older cbsdmq wrote.
type Migration struct {
	From int    // the schema version that it had
	Copy string // the file that holds it as it was
}

// Migrated is nil unless this Open brought the journal to the schema of today.
func (j *Journal) Migrated() *Migration { return j.migrated }

// migrate brings the journal from an older schema to the one of today, in one
// transaction: killed at any moment, it is the one or the other. Before that it
// makes a copy, for who goes back to the older cbsdmq.
func (j *Journal) migrate(ctx context.Context, from int) (err error) {
	saved := fmt.Sprintf("%s.v%d", j.path, from)
	if err := j.copyTo(ctx, saved); err != nil {
		return fmt.Errorf("copying it to %s before its schema is changed: %w", saved, err)
	}
	err = j.atomically(ctx, func() error {
		for v := from; v < schemaVersion; v++ {
			for _, q := range migrations[v] {
				if _, err := j.write.ExecContext(ctx, q); err != nil {
					return err
				}
			}
		}
		_, err := j.write.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion))
		return err
	})
	if err != nil {
		os.Remove(saved) // the room may be what is missing
		return fmt.Errorf("changing its schema from version %d to %d: %w", from, schemaVersion, err)
	}
	j.migrated = &Migration{From: from, Copy: saved}
	return nil
}

// copyTo makes a synced copy of the journal, in place of an older one.
func (j *Journal) copyTo(ctx context.Context, name string) error {
	tmp := name + ".new"
	if err := removeCopy(tmp); err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	_, err = j.write.ExecContext(ctx, "VACUUM INTO ?", tmp) // into a file of no length: its mode stays
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, removeCopy(tmp))
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

// removeCopy removes what a copy that was not finished left: the file, and
// SQLite's journal of it.
func removeCopy(tmp string) error {
	for _, name := range []string{tmp, tmp + "-journal"} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// migrations are the statements that lead from each schema to the next one.
// The last one makes the tables of today, so a new version of the schema gives
// the one before it a text of its own here.
var migrations = [schemaVersion][]string{
	1: {
		"DROP INDEX job_ident", "DROP INDEX job_key", "DROP INDEX job_kept", "DROP INDEX job_dropped",
		"DROP INDEX address_owed", "DROP INDEX alias_job",
		"ALTER TABLE meta RENAME TO meta_1", "ALTER TABLE job RENAME TO job_1", "ALTER TABLE address RENAME TO address_1",
		"ALTER TABLE alias RENAME TO alias_1", "ALTER TABLE broker RENAME TO broker_1", "ALTER TABLE tombstone RENAME TO tombstone_1",
		schema,
		"INSERT INTO meta SELECT * FROM meta_1",
		`INSERT INTO job (seq, id, ident, sender, key, bus, command, guest, flags, state, accepted, expires, begun, finished,
			epoch, n, host, boot, outsize, result, before, plan, output)
			SELECT seq, id, ident, sender, key, bus, command, guest, flags, state, accepted, expires, begun, finished,
			epoch, n, host, boot, outsize, result, before, plan, output FROM job_1 ORDER BY seq`,
		"INSERT INTO address SELECT * FROM address_1",
		"INSERT INTO alias SELECT * FROM alias_1",
		// It was one text, 'SEQ NAME'; a still older one was NAME alone.
		`INSERT INTO broker SELECT bus,
			CASE WHEN numbered THEN substr(instance, space + 1) ELSE instance END,
			CASE WHEN numbered THEN CAST(substr(instance, 1, space - 1) AS INTEGER) ELSE 9223372036854775807 END
			FROM (SELECT bus, instance, instr(instance, ' ') AS space,
				instr(instance, ' ') > 1 AND substr(instance, 1, instr(instance, ' ') - 1) NOT GLOB '*[^0-9]*' AS numbered FROM broker_1)`,
		"INSERT INTO tombstone SELECT * FROM tombstone_1",
		"DROP TABLE meta_1", "DROP TABLE job_1", "DROP TABLE address_1", "DROP TABLE alias_1", "DROP TABLE broker_1", "DROP TABLE tombstone_1",
	},
}
