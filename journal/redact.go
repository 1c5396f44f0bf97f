package journal

import "context"

// replan puts plan in the place of the plan of a job that has just ended, which
// held secrets.
func (j *Journal) replan(ctx context.Context, seq int64, plan []byte) error {
	var was int64
	if err := j.stmt.planSize.QueryRowContext(ctx, seq).Scan(&was); err != nil {
		return err
	}
	if _, err := j.stmt.replan.ExecContext(ctx, plan, seq); err != nil {
		return err
	}
	j.kept += int64(len(plan)) - was
	j.unscrubbed = true
	return nil
}

// Scrub takes what was redacted out of the log beside the file too, if there is
// any: there it would stay until it is overwritten by chance. What readers are at
// is taken at the next call.
func (j *Journal) Scrub() error {
	if !j.unscrubbed || j.mode != "wal" {
		return nil
	}
	ctx := context.Background() // see Commit
	var busy, pages, moved int64
	err := j.withoutWaiting(ctx, func() error {
		return j.write.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	})
	if err == nil && busy == 0 {
		j.unscrubbed = false
	}
	return explain("scrubbing the log of journal", j.path, err)
}

// withoutWaiting runs f without waiting for readers.
func (j *Journal) withoutWaiting(ctx context.Context, f func() error) error {
	if _, err := j.write.ExecContext(ctx, "PRAGMA busy_timeout = 0"); err != nil {
		return err
	}
	err := f()
	if _, e := j.write.ExecContext(ctx, "PRAGMA busy_timeout = 5000"); err == nil {
		err = e
	}
	return err
}
