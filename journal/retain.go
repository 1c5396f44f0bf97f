package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Limits bound what a journal keeps.
type Limits struct {
	Results time.Duration // plans, results and output of ended jobs
	IDs     time.Duration // identities, so that a repeat never runs; at least Results
	Size    int64         // bytes of the database and the output files; past it the oldest results go early
}

// pruneStep bounds one transaction of Prune, so that it never holds up the
// agent for long.
const pruneStep = 500

// Prune drops what is older than l allows, a step at a time, and reports
// whether there may be more. It belongs to the writer, as Commit does.
func (j *Journal) Prune(ctx context.Context, now time.Time, l Limits) (more bool, err error) {
	seqs, err := j.droppable(ctx, now, l)
	if err != nil {
		return false, fmt.Errorf("pruning the journal: %w", err)
	}
	forget := now.Add(-max(l.IDs, l.Results)).UnixMicro()
	tx, err := j.write.BeginTx(ctx, nil)
	if err != nil {
		return false, fmt.Errorf("pruning the journal: %w", err)
	}
	defer tx.Rollback()
	for _, seq := range seqs {
		if _, err := tx.ExecContext(ctx, "UPDATE job SET plan = NULL, output = NULL WHERE seq = ?", seq); err != nil {
			return false, fmt.Errorf("pruning the journal: %w", err)
		}
	}
	var forgot int64
	for _, q := range []string{
		"DELETE FROM address WHERE job IN (SELECT seq FROM job WHERE finished > 0 AND finished < ?1 ORDER BY finished LIMIT ?2)",
		"DELETE FROM alias WHERE job IN (SELECT seq FROM job WHERE finished > 0 AND finished < ?1 ORDER BY finished LIMIT ?2)",
		"DELETE FROM job WHERE seq IN (SELECT seq FROM job WHERE finished > 0 AND finished < ?1 ORDER BY finished LIMIT ?2)",
		"DELETE FROM tombstone WHERE at < ?1 AND ?2 > 0",
	} {
		res, err := tx.ExecContext(ctx, q, forget, pruneStep)
		if err != nil {
			return false, fmt.Errorf("pruning the journal: %w", err)
		}
		forgot, _ = res.RowsAffected()
	}
	if err := tx.Commit(); err != nil {
		return false, fmt.Errorf("pruning the journal: %w", err)
	}
	var errs []error
	for _, seq := range seqs {
		if err := os.Remove(outputFile(j.path, seq)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return len(seqs) == pruneStep || forgot == pruneStep, errors.Join(errs...)
}

// droppable lists jobs whose results are to go: too old, or the oldest where
// the journal is too large. A job that owes a reply keeps its result.
func (j *Journal) droppable(ctx context.Context, now time.Time, l Limits) ([]int64, error) {
	before := now.Add(-l.Results)
	if l.Size > 0 {
		size, err := j.size(ctx)
		if err != nil {
			return nil, err
		}
		if size > l.Size {
			before = now
		}
	}
	rows, err := j.write.QueryContext(ctx, `SELECT seq FROM job WHERE finished > 0 AND finished < ? AND plan IS NOT NULL
		AND NOT EXISTS (SELECT 1 FROM address WHERE job = seq AND state = 0)
		ORDER BY finished LIMIT ?`, before.UnixMicro(), pruneStep)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var seqs []int64
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			return nil, err
		}
		seqs = append(seqs, seq)
	}
	return seqs, rows.Err()
}

// size is the bytes in use: pages of the database that hold something, and the
// output files.
func (j *Journal) size(ctx context.Context) (int64, error) {
	var pages, free, page int64
	for q, to := range map[string]*int64{"page_count": &pages, "freelist_count": &free, "page_size": &page} {
		if err := j.write.QueryRowContext(ctx, "PRAGMA "+q).Scan(to); err != nil {
			return 0, err
		}
	}
	size := (pages - free) * page
	files, err := os.ReadDir(filepath.Join(filepath.Dir(j.path), "output"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, f := range files {
		if fi, err := f.Info(); err == nil {
			size += fi.Size()
		}
	}
	return size, nil
}

// Sweep removes output files without a row: left by an agent that was killed
// between writing the output and committing the end.
func (j *Journal) Sweep(ctx context.Context) error {
	dir := filepath.Join(filepath.Dir(j.path), "output")
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		seq, err := strconv.ParseInt(strings.TrimSuffix(f.Name(), ".out"), 10, 64)
		if err != nil {
			continue
		}
		var n int
		err = j.write.QueryRowContext(ctx, "SELECT count(*) FROM job WHERE seq = ? AND finished > 0 AND plan IS NOT NULL", seq).Scan(&n)
		if err != nil {
			return err
		}
		if n == 0 {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
