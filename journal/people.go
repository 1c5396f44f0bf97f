package journal

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"time"

	"github.com/cbsd/cbsdmq"
)

// actsMax bounds the acts that are kept, beside Limits.IDs.
const actsMax = 10_000

// writePeople writes what people decided.
func (j *Journal) writePeople(ctx context.Context, b *Batch) error {
	for _, p := range b.Pause {
		if _, err := j.stmt.pause.ExecContext(ctx, p.Guest, p.Reason, p.By, micro(p.Since)); err != nil {
			return err
		}
	}
	for _, guest := range b.Resume {
		if _, err := j.stmt.resume.ExecContext(ctx, guest); err != nil {
			return err
		}
	}
	for _, v := range b.Verdict {
		if _, err := j.stmt.verdict.ExecContext(ctx, v.Seq, string(v.State), v.Reason, v.By, micro(v.At)); err != nil {
			return err
		}
	}
	for _, a := range b.Act {
		if _, err := j.stmt.act.ExecContext(ctx, micro(a.At), a.By, a.What, a.Guest, a.Job, a.Reason); err != nil {
			return err
		}
	}
	return nil
}

// Pauses returns what is paused, the whole pool first, then by guest.
func (r Reader) Pauses(ctx context.Context) ([]cbsdmq.Pause, error) {
	return values(list(ctx, r, "SELECT guest, reason, who, at FROM pause ORDER BY guest", func(p *cbsdmq.Pause, row scanner) error {
		var at int64
		err := row.Scan(&p.Guest, &p.Reason, &p.By, &at)
		p.Since = fromMicro(at)
		return err
	}))
}

// Verdict returns what a person found out about a job, or nil.
func (r Reader) Verdict(ctx context.Context, seq int64) (*cbsdmq.Verdict, error) {
	var v cbsdmq.Verdict
	var at int64
	err := r.db.QueryRowContext(ctx, "SELECT state, reason, who, at FROM verdict WHERE job = ?", seq).Scan(&v.State, &v.Reason, &v.By, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	v.At = fromMicro(at)
	return &v, explain("reading journal", r.path, err)
}

// Acts returns at most limit acts, the newest first: of a guest unless that is
// "", not older than since, and with a seq only those before it.
func (r Reader) Acts(ctx context.Context, limit int, guest string, since time.Time, before int64) ([]cbsdmq.Act, error) {
	return values(list(ctx, r, "SELECT seq, at, who, what, guest, job, reason FROM act "+whereActs, func(a *cbsdmq.Act, row scanner) error {
		var at int64
		err := row.Scan(&a.Seq, &at, &a.By, &a.What, &a.Guest, &a.Job, &a.Reason)
		a.At = fromMicro(at)
		return err
	}, before, micro(since), guest, limit))
}

// An act without a guest is about the whole pool, or about a job.
const whereActs = "WHERE (?1 = 0 OR seq < ?1) AND at >= ?2 AND (?3 = '' OR guest = ?3 OR guest = '' AND job = '') ORDER BY seq DESC LIMIT ?4"

// Oldest is when the job was accepted that has waited longest to be begun; the
// zero time where none waits.
func (r Reader) Oldest(ctx context.Context) (time.Time, error) {
	var us sql.NullInt64
	err := r.db.QueryRowContext(ctx, "SELECT min(accepted) FROM job WHERE finished = 0 AND plan IS NOT NULL AND begun = 0").Scan(&us)
	return fromMicro(us.Int64), explain("reading journal", r.path, err)
}

// pruneActs drops acts that are too old or too many, and reports whether there
// may be more of them.
func (j *Journal) pruneActs(ctx context.Context, now time.Time, l Limits) (more bool, err error) {
	res, err := j.write.ExecContext(ctx, "DELETE FROM act WHERE seq IN (SELECT seq FROM act WHERE at < ? OR seq <= (SELECT max(seq) FROM act) - ? ORDER BY seq LIMIT "+strconv.Itoa(pruneStep)+")",
		before(now, l.forget()), actsMax)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == pruneStep, err
}

type scanner = interface{ Scan(...any) error }

func values[T any](list []*T, err error) ([]T, error) {
	var out []T
	for _, v := range list {
		out = append(out, *v)
	}
	return out, err
}
