package journal

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/cbsd/cbsdmq"
)

// Commit writes b as one transaction and returns when it is on stable storage.
// Where it fails b was not written and may be committed again; if the process
// is killed right then, the next one may find all of it. When the disk is full
// and b holds the end of a job or is Urgent, the reserve is given up for it.
//
// An empty b is written too: it shows whether the journal can be.
func (j *Journal) Commit(b *Batch) error {
	// A context that can end would cost a goroutine per statement, and a write
	// that was begun has to be ended.
	ctx := context.Background()
	err := j.commit(ctx, b)
	if noRoom(err) {
		j.slack = false
	}
	if noRoom(err) && (b.Urgent || len(b.Finish) > 0) && j.reserve.free() {
		err = j.commit(ctx, b)
	}
	return explain("writing journal", j.path, err)
}

func (j *Journal) commit(ctx context.Context, b *Batch) error {
	meta, kept, tombstones := j.meta, j.kept, j.tombstones
	err := j.atomically(ctx, func() error { return j.writeBatch(ctx, b) })
	if err != nil {
		j.meta, j.kept, j.tombstones = meta, kept, tombstones
	}
	return err
}

// atomically makes what f writes one transaction.
func (j *Journal) atomically(ctx context.Context, f func() error) error {
	if _, err := j.stmt.begin.ExecContext(ctx); err != nil {
		return err
	}
	err := f()
	if err == nil {
		_, err = j.stmt.commit.ExecContext(ctx)
	}
	if err != nil {
		// This fails where SQLite has rolled back by itself.
		_, _ = j.stmt.rollback.ExecContext(ctx)
	}
	return err
}

func (j *Journal) writeBatch(ctx context.Context, b *Batch) error {
	now := time.Now()
	us := now.UnixMicro()
	for _, id := range b.Tombstone {
		res, err := j.stmt.tombstone.ExecContext(ctx, id, us)
		if err != nil {
			return err
		}
		added, err := res.RowsAffected()
		if err != nil {
			return err
		}
		j.strays = true
		j.tombstones += int(added)
	}
	known := false
	for _, a := range b.Accept {
		if err := j.accept(ctx, a, us); err != nil {
			return fmt.Errorf("accepting %s: %w", a.Job.ID, err)
		}
		known = known || a.Known != nil
	}
	for _, seq := range b.Unbegin {
		if _, err := j.stmt.unbegin.ExecContext(ctx, string(cbsdmq.Queued), seq); err != nil {
			return err
		}
	}
	for _, g := range b.Begin {
		if err := j.begin(ctx, g, us); err != nil {
			return err
		}
	}
	for _, f := range b.Finish {
		if err := j.finish(ctx, f, us); err != nil {
			return err
		}
	}
	for _, s := range b.Sent {
		if _, err := j.stmt.sent.ExecContext(ctx, int64(s.State), us, int64(s.PutID), s.Seq, s.Bus, s.Tube); err != nil {
			return err
		}
	}
	for _, seq := range b.Cancel {
		if _, err := j.stmt.mark.ExecContext(ctx, int64(Cancelled), seq); err != nil {
			return err
		}
	}
	for _, m := range b.Mark {
		if _, err := j.stmt.mark.ExecContext(ctx, int64(m.Flags), m.Seq); err != nil {
			return err
		}
	}
	for _, seq := range b.Release {
		if _, err := j.stmt.release.ExecContext(ctx, string(cbsdmq.Queued), seq, string(cbsdmq.Held)); err != nil {
			return err
		}
	}
	for _, k := range b.Broker {
		if _, err := j.stmt.broker.ExecContext(ctx, k.Bus, k.Instance); err != nil {
			return err
		}
	}
	if err := j.writePeople(ctx, b); err != nil {
		return err
	}
	if known {
		for _, a := range b.Accept {
			if a.Known == nil {
				continue
			}
			if err := a.Known.scan(j.stmt.bySeq.QueryRowContext(ctx, a.Known.Seq)); err != nil {
				return err
			}
		}
	}
	j.meta.Commits++
	j.meta.Saved = now
	_, err := j.stmt.meta.ExecContext(ctx, int64(j.meta.N), int64(j.meta.Commits), us)
	return err
}

func (j *Journal) begin(ctx context.Context, g *Begin, us int64) error {
	g.N = 0
	n := j.meta.N + 1
	res, err := j.stmt.beginJob.ExecContext(ctx, string(cbsdmq.Running), us,
		int64(j.meta.Epoch), int64(n), j.host, j.boot, g.Before, g.Seq, string(cbsdmq.Held))
	if err != nil {
		return err
	}
	begun, err := res.RowsAffected()
	if err != nil || begun == 0 {
		return err
	}
	j.meta.N, g.N = n, n
	return nil
}

func (j *Journal) finish(ctx context.Context, f *Finish, us int64) (err error) {
	if f.Plan != nil {
		// Pages that are given up are overwritten too, which for all jobs would be
		// as much to write again.
		if _, err := j.write.ExecContext(ctx, "PRAGMA secure_delete = ON"); err != nil {
			return err
		}
		defer func() {
			if _, e := j.write.ExecContext(ctx, "PRAGMA secure_delete = FAST"); err == nil {
				err = e
			}
		}()
		// Where it lies, before the row grows and is moved.
		if _, err := j.stmt.blank.ExecContext(ctx, f.Seq); err != nil {
			return err
		}
	}
	res, err := j.stmt.finish.ExecContext(ctx, string(f.State), us, f.Result, f.Output, f.OutSize, f.Seq)
	if err != nil {
		return err
	}
	ended, err := res.RowsAffected()
	f.Late = ended == 0
	if err != nil || f.Late {
		return err
	}
	if f.Plan != nil {
		if err := j.replan(ctx, f.Seq, f.Plan); err != nil {
			return err
		}
	}
	j.kept += int64(len(f.Output))
	if f.Output == nil && f.OutSize > 0 {
		j.kept += fileSize(outputFile(j.path, f.Seq))
	}
	return nil
}

// statements are prepared once: that saves a third of a commit's time.
type statements struct {
	all                                              []*sql.Stmt
	begin, commit, rollback                          *sql.Stmt
	insert, address, beginJob, finish, sent          *sql.Stmt
	mark, release, tombstone, alias, meta, broker    *sql.Stmt
	unbegin                                          *sql.Stmt
	pause, resume, verdict, act                      *sql.Stmt
	blank, planSize, replan                          *sql.Stmt
	signer, stray, byIdent, byID, byKey, bySeq, like *sql.Stmt
}

func (s *statements) prepareTx(ctx context.Context, c *sql.Conn) error {
	return s.add(ctx, c, map[**sql.Stmt]string{
		&s.begin:    "BEGIN IMMEDIATE",
		&s.commit:   "COMMIT",
		&s.rollback: "ROLLBACK",
	})
}

func (s *statements) prepare(ctx context.Context, c *sql.Conn) error {
	return s.add(ctx, c, s.texts())
}

func (s *statements) texts() map[**sql.Stmt]string {
	return map[**sql.Stmt]string{
		&s.insert: `INSERT INTO job (id, ident, sender, key, bus, command, guest, signer, signkey, flags, state, accepted, expires, begun, epoch, n, host, boot, before, plan)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
		&s.address:   "INSERT INTO address VALUES (?, ?, ?, ?, 0, 0, 0) ON CONFLICT DO NOTHING",
		&s.beginJob:  "UPDATE job SET state = ?, begun = ?, epoch = ?, n = ?, host = ?, boot = ?, before = ? WHERE seq = ? AND finished = 0 AND state <> ?",
		&s.unbegin:   "UPDATE job SET state = ?, begun = 0, epoch = 0, n = 0, host = '', boot = '' WHERE seq = ? AND finished = 0 AND begun > 0",
		&s.finish:    "UPDATE job SET state = ?, finished = ?, result = ?, output = ?, outsize = ?, before = NULL WHERE seq = ? AND finished = 0",
		&s.sent:      "UPDATE address SET state = ?, put = ?, put_id = ? WHERE job = ? AND bus = ? AND tube = ?",
		&s.mark:      "UPDATE job SET flags = flags | ? WHERE seq = ? AND finished = 0",
		&s.release:   "UPDATE job SET state = ? WHERE seq = ? AND state = ?",
		&s.broker:    "INSERT INTO broker VALUES (?, ?, (SELECT coalesce(max(seq), 0) + 1 FROM job)) ON CONFLICT DO UPDATE SET instance = excluded.instance, since = excluded.since",
		&s.tombstone: "INSERT INTO tombstone VALUES (?, ?) ON CONFLICT DO NOTHING",
		&s.alias:     "INSERT INTO alias VALUES (?, ?) ON CONFLICT DO NOTHING",
		&s.pause:     "INSERT INTO pause (guest, reason, who, at) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET reason = excluded.reason, who = excluded.who, at = excluded.at",
		&s.resume:    "DELETE FROM pause WHERE guest = ?",
		&s.verdict:   "INSERT INTO verdict (job, state, reason, who, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state, reason = excluded.reason, who = excluded.who, at = excluded.at",
		&s.act:       "INSERT INTO act (at, who, what, guest, job, reason) VALUES (?, ?, ?, ?, ?, ?)",
		&s.meta:      "UPDATE meta SET n = ?, commits = ?, saved = ?",
		&s.stray:     "SELECT EXISTS (SELECT 1 FROM tombstone WHERE id = ?1), coalesce((SELECT job FROM alias WHERE id = ?1), 0)",
		&s.blank:     "UPDATE job SET plan = zeroblob(length(plan)) WHERE seq = ? AND finished = 0",
		&s.planSize:  "SELECT length(plan) FROM job WHERE seq = ?",
		&s.replan:    "UPDATE job SET plan = ? WHERE seq = ?",
		&s.signer:    "SELECT signer FROM job WHERE seq = ?",
		&s.byIdent:   "SELECT seq FROM job WHERE ident = ? AND ident <> id",
		&s.byID:      "SELECT seq FROM job WHERE id = ?",
		&s.byKey:     "SELECT seq FROM job WHERE signer = ? AND sender = ? AND key = ? AND key <> ''",
		&s.bySeq:     "SELECT " + jobColumns + " FROM job WHERE seq = ?",
		&s.like:      "SELECT id FROM job WHERE id >= ?1 || '.' AND id < ?1 || '/'", // '/' follows '.'
	}
}

func (s *statements) add(ctx context.Context, c *sql.Conn, list map[**sql.Stmt]string) error {
	for to, q := range list {
		st, err := c.PrepareContext(ctx, q)
		if err != nil {
			return fmt.Errorf("preparing %q: %w", q, err)
		}
		*to = st
		s.all = append(s.all, st)
	}
	return nil
}

func (s *statements) close() {
	for _, st := range s.all {
		st.Close()
	}
}
