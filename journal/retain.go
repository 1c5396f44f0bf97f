package journal

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"time"
)

// Limits bound what a journal keeps. Zero is no limit. Nothing is dropped of a
// job that has not ended, or that still owes a reply.
type Limits struct {
	Results time.Duration // plans and output of ended jobs; the last reply without output stays as long as the id
	IDs     time.Duration // identities, so that a repeat never runs; at least Results
	Size    int64         // bytes of plans and output; past it the oldest go before their time
}

// Ahead is by how much the clock of a client that makes ids may be ahead: an
// hour, at most IDs, after which an id of a clock that is behind is stale.
func (l Limits) Ahead() time.Duration {
	const most = time.Hour
	if l.IDs == 0 {
		return most
	}
	return min(most, l.IDs)
}

// pruneStep bounds one transaction of Prune, so that it never holds up the
// agent for long.
const pruneStep = 500

// Prune drops what is older than l allows, a step at a time, and reports
// whether there may be more. The room is used again by the journal; the file
// itself does not shrink.
func (j *Journal) Prune(ctx context.Context, now time.Time, l Limits) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	ctx = context.WithoutCancel(ctx) // an interrupted statement would cost the connection
	more, err = j.prune(ctx, now, l)
	if noRoom(err) && j.reserve.free() {
		more, err = j.prune(ctx, now, l)
	}
	return more, explain("dropping old results of journal", j.path, err)
}

func (j *Journal) prune(ctx context.Context, now time.Time, l Limits) (more bool, err error) {
	var files []string
	var freed, tombs int64
	err = j.atomically(ctx, func() error {
		drops, err := j.droppable(ctx, now, l)
		if err != nil {
			return err
		}
		var seqs []int64
		for _, d := range drops {
			seqs = append(seqs, d.seq)
			freed += d.size
			if d.file != "" {
				files = append(files, d.file)
			}
		}
		if err := j.change(ctx, seqs, "UPDATE job SET plan = NULL, output = NULL WHERE seq IN (SELECT value FROM json_each(?))"); err != nil {
			return err
		}
		forget, err := j.forgettable(ctx, now, l)
		if err != nil {
			return err
		}
		for _, q := range []string{
			"DELETE FROM address WHERE job IN (SELECT value FROM json_each(?))",
			"DELETE FROM verdict WHERE job IN (SELECT value FROM json_each(?))",
			"DELETE FROM alias WHERE job IN (SELECT value FROM json_each(?))",
			"DELETE FROM job WHERE seq IN (SELECT value FROM json_each(?))",
		} {
			if err := j.change(ctx, forget, q); err != nil {
				return err
			}
		}
		moreActs, err := j.pruneActs(ctx, now, l)
		if err != nil {
			return err
		}
		res, err := j.write.ExecContext(ctx, "DELETE FROM tombstone WHERE id IN (SELECT id FROM tombstone WHERE at < ? LIMIT ?)",
			before(now, l.forget()), pruneStep)
		if err != nil {
			return err
		}
		if tombs, err = res.RowsAffected(); err != nil {
			return err
		}
		more = len(drops) == pruneStep || len(forget) == pruneStep || tombs == pruneStep || moreActs
		return nil
	})
	if err != nil {
		return false, err
	}
	j.kept -= freed
	j.tombstones -= int(tombs)
	var errs []error
	for _, name := range files {
		// What is left here is removed by Sweep.
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return more, errors.Join(errs...)
}

// Tombstones is how many jobs are remembered as cancelled that had not come. It is
// for who commits.
func (j *Journal) Tombstones() int { return j.tombstones }

// change runs a statement on the jobs seqs, its only argument as JSON.
func (j *Journal) change(ctx context.Context, seqs []int64, query string) error {
	if len(seqs) == 0 {
		return nil
	}
	b, err := json.Marshal(seqs)
	if err != nil {
		return err
	}
	_, err = j.write.ExecContext(ctx, query, string(b))
	return err
}

// countKept counts what Limits.Size bounds. From then on Commit and Prune keep
// count.
func (j *Journal) countKept(ctx context.Context) error {
	err := j.write.QueryRowContext(ctx, "SELECT coalesce(sum(length(plan) + coalesce(length(output), 0)), 0) FROM job WHERE plan IS NOT NULL").Scan(&j.kept)
	if err != nil {
		return err
	}
	rows, err := j.write.QueryContext(ctx, "SELECT seq FROM job WHERE finished > 0 AND plan IS NOT NULL AND output IS NULL AND outsize > 0")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		if err := rows.Scan(&seq); err != nil {
			return err
		}
		j.kept += fileSize(outputFile(j.path, seq))
	}
	return rows.Err()
}

// forget is how long an id is remembered: until it is stale wherever it was made,
// and as long again as it may be ahead, since this host's clock may be set.
func (l Limits) forget() time.Duration {
	if l.IDs == 0 || l.Results == 0 {
		return 0
	}
	return max(l.IDs, l.Results) + 2*l.Ahead()
}

// before is the journal's form of the time age ago, in the far past for 0.
func before(now time.Time, age time.Duration) int64 {
	if age == 0 {
		return math.MinInt64
	}
	return now.Add(-age).UnixMicro()
}

// A drop is a job whose plan and output are to go.
type drop struct {
	seq  int64
	size int64
	file string // of its output, or ""
}

const (
	owesNothing     = "NOT EXISTS (SELECT 1 FROM address WHERE job = seq AND state = 0)"
	selectDroppable = `SELECT seq, finished, length(plan) + coalesce(length(output), 0), output IS NULL AND outsize > 0
		FROM job WHERE finished > 0 AND plan IS NOT NULL AND ` + owesNothing + " ORDER BY finished LIMIT ?"
	selectForgettable = `SELECT seq FROM job WHERE plan IS NULL AND finished > 0 AND finished < ?
		AND seq < (SELECT max(seq) FROM job) AND ` + owesNothing + " ORDER BY finished LIMIT ?"
)

// droppable lists the oldest jobs whose plans and output are to go: those that
// are too old, and as many more as make the journal too large.
func (j *Journal) droppable(ctx context.Context, now time.Time, l Limits) ([]drop, error) {
	rows, err := j.write.QueryContext(ctx, selectDroppable, pruneStep)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	old := before(now, l.Results)
	over := int64(0)
	if l.Size > 0 {
		over = j.kept - l.Size
	}
	var out []drop
	for rows.Next() {
		var d drop
		var finished int64
		var inFile bool
		if err := rows.Scan(&d.seq, &finished, &d.size, &inFile); err != nil {
			return nil, err
		}
		if finished >= old && over <= 0 {
			break
		}
		if inFile {
			d.file = outputFile(j.path, d.seq)
			d.size += fileSize(d.file)
		}
		over -= d.size
		out = append(out, d)
	}
	return out, rows.Err()
}

// forgettable lists the oldest jobs whose ids need not be remembered. The
// newest job stays, so that numbers do not begin again.
func (j *Journal) forgettable(ctx context.Context, now time.Time, l Limits) ([]int64, error) {
	rows, err := j.write.QueryContext(ctx, selectForgettable, before(now, l.forget()), pruneStep)
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
