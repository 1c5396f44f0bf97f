package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

// accept inserts one job, or finds the one that it is. Of a known job it sets
// the Seq only.
func (j *Journal) accept(ctx context.Context, a *Accept, us int64) error {
	r := a.Job
	a.Known, a.NewAddress, a.Cancelled, a.Foreign = nil, false, false, false
	seq, err := j.known(ctx, a)
	if err != nil {
		return err
	}
	if seq == 0 {
		if r.Seq, err = j.insert(ctx, a); err != nil {
			return err
		}
		if r.Seq == 0 {
			if seq, err = j.conflict(ctx, a); err != nil {
				return err
			}
		}
	}
	if seq != 0 {
		a.Known, a.Cancelled, r.Seq = &Job{Seq: seq}, false, 0
		var signer string
		if err := j.stmt.signer.QueryRowContext(ctx, seq).Scan(&signer); err != nil {
			return err
		}
		if signer != r.Signer {
			a.Foreign = true
			return nil // its address gets no answer that is not its own
		}
	} else {
		seq = r.Seq
		if a.End != nil {
			a.End.Seq = seq
			if err := j.finish(ctx, a.End, us); err != nil {
				return err
			}
		}
	}
	if a.Address == (Address{}) {
		return nil // nobody waits for a reply
	}
	res, err := j.stmt.address.ExecContext(ctx, seq, a.Address.Bus, a.Address.Tube, a.Address.BrokerID)
	if err != nil {
		return err
	}
	added, err := res.RowsAffected()
	a.NewAddress = added > 0
	return err
}

// known looks for what is not in the table of jobs: it returns the seq of the
// job that a.Job.ID is an alias of, else 0, and sets a.Cancelled.
func (j *Journal) known(ctx context.Context, a *Accept) (seq int64, err error) {
	if !j.strays || a.Job.Flags&Legacy != 0 {
		return 0, nil
	}
	err = j.stmt.stray.QueryRowContext(ctx, a.Job.ID).Scan(&a.Cancelled, &seq)
	return seq, err
}

// insert returns the new row's seq, or 0 where another job has the id, the
// identity or the key.
func (j *Journal) insert(ctx context.Context, a *Accept) (int64, error) {
	r := a.Job
	r.State, r.Begun, r.Epoch, r.N, r.Host, r.Boot = cbsdmq.Queued, time.Time{}, 0, 0, "", ""
	begin := a.Begin && !a.Cancelled
	if begin {
		r.State, r.Begun = cbsdmq.Running, r.Accepted
		r.Epoch, r.N, r.Host, r.Boot = j.meta.Epoch, j.meta.N+1, j.host, j.boot
	}
	if a.Cancelled {
		r.Flags |= Cancelled
	}
	plan := r.Plan
	if plan == nil {
		plan = []byte{} // NULL is for plans that were dropped
	}
	res, err := j.stmt.insert.ExecContext(ctx, r.ID, r.Ident, r.Sender, r.Key, r.Bus, r.Command, r.Guest,
		r.Signer, r.SignKey, int64(r.Flags), string(r.State), micro(r.Accepted), micro(r.Expires), micro(r.Begun),
		int64(r.Epoch), int64(r.N), r.Host, r.Boot, r.Before, plan)
	if err != nil {
		return 0, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return 0, err
	}
	if begin {
		j.meta.N = r.N
	}
	j.kept += int64(len(plan))
	return res.LastInsertId()
}

// conflict finds the job that kept a.Job from being inserted. Where that is
// only another legacy job with the same number, a.Job gets another one and is
// inserted; then the result is 0.
func (j *Journal) conflict(ctx context.Context, a *Accept) (seq int64, err error) {
	r := a.Job
	if r.Flags&Legacy == 0 {
		seq, err = j.seq(ctx, j.stmt.byID, r.ID)
		if seq != 0 || err != nil {
			return seq, err
		}
	}
	if seq, err = j.seq(ctx, j.stmt.byIdent, r.Ident); seq != 0 || err != nil {
		return seq, err
	}
	if r.Flags&Legacy != 0 {
		if r.ID, err = j.nextNumber(ctx, r.ID); err != nil {
			return 0, err
		}
		if r.Seq, err = j.insert(ctx, a); r.Seq != 0 || err != nil {
			return 0, err
		}
	}
	if seq, err = j.seq(ctx, j.stmt.byKey, r.Signer, r.Sender, r.Key); err != nil {
		return 0, err
	}
	if seq == 0 {
		return 0, fmt.Errorf("identity %q conflicts with a job that cannot be found", r.Ident)
	}
	if r.Flags&Legacy == 0 {
		// The sender's key named a job that it submitted under another id.
		if _, err := j.stmt.alias.ExecContext(ctx, r.ID, seq); err != nil {
			return 0, err
		}
		j.strays = true
	}
	return seq, nil
}

// seq returns the number that q finds, 0 where it finds none.
func (j *Journal) seq(ctx context.Context, q *sql.Stmt, args ...any) (seq int64, err error) {
	err = q.QueryRowContext(ctx, args...).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return seq, err
}

// nextNumber is an id for one more legacy job with the broker's number in id.
// Brokers count each for itself, and some from 1 again.
func (j *Journal) nextNumber(ctx context.Context, id string) (string, error) {
	base, _, _ := strings.Cut(id, ".")
	rows, err := j.stmt.like.QueryContext(ctx, base)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	last := 1
	for rows.Next() {
		var other string
		if err := rows.Scan(&other); err != nil {
			return "", err
		}
		if n, err := strconv.Atoi(other[len(base)+1:]); err == nil {
			last = max(last, n)
		}
	}
	return fmt.Sprintf("%s.%d", base, last+1), rows.Err()
}
