package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

// Flags of a job.
type Flags int64

// What a job asked for, and what was asked about it since.
const (
	Stream    Flags = 1 << iota // output as it comes
	Cancelled                   // somebody asked to cancel it
	Legacy                      // from an original client
	Reads                       // its command changes nothing: it may be begun twice
)

// AddressState says what became of the replies to one address.
type AddressState int

// Owed until the broker confirmed the last reply. Sent replies are removed from
// brokers that do not do it themselves, then they are Gone. Undeliverable: the
// broker began its ids again, the address may belong to a stranger.
const (
	Owed AddressState = iota
	Sent
	Gone
	Undeliverable
)

// A Job is a row of the journal.
type Job struct {
	Seq      int64
	ID       string
	Ident    string
	Sender   string
	Key      string
	Bus      string
	Command  string
	Guest    string
	Plan     []byte
	Flags    Flags
	State    cbsdmq.State
	Accepted time.Time
	Expires  time.Time
	Begun    time.Time
	Finished time.Time
	Epoch    uint64
	N        uint64
	Host     string
	Boot     string
	Before   []byte
	Result   []byte // the last reply as JSON, without its output
	OutSize  int64  // bytes of stdout that are kept
}

// An Address is where replies go.
type Address struct {
	Bus  string
	Tube string
	// BrokerID: the tube is named after an id that the broker gave, and dies
	// with the broker's id space.
	BrokerID bool
}

// An Accept is a delivery to be written down.
type Accept struct {
	Job     *Job // Seq and, if Begin, N are set by Commit
	Address Address
	Begin   bool    // insert it as begun: its lane and a worker are free
	End     *Finish // it ends at once (refused): its Finish; Seq is set by Commit

	// Known is set by Commit when the journal had the job already: by its
	// identity, or by the sender's key. Nothing was inserted then but the
	// address; NewAddress says whether that is new.
	Known      *Job
	NewAddress bool
	// Cancelled is set by Commit where somebody cancelled the job before it
	// came. It was inserted, not begun.
	Cancelled bool
}

// A Begin marks an accepted job as begun.
type Begin struct {
	Seq    int64
	Before []byte
	N      uint64 // set by Commit
}

// A Finish is the end of a job.
type Finish struct {
	Seq     int64
	State   cbsdmq.State
	Result  []byte
	Output  []byte // stdout, where it is at most InlineOutput; else nil and SaveOutput was called
	OutSize int64
}

// A SentReply marks the last reply as confirmed by the broker.
type SentReply struct {
	Seq   int64
	Bus   string
	Tube  string
	PutID uint64
	State AddressState
}

// A Batch is what one Commit writes.
type Batch struct {
	Accept    []*Accept
	Begin     []*Begin
	Finish    []*Finish
	Sent      []SentReply
	Cancel    []int64  // seqs
	Tombstone []string // ids
	Release   []int64  // seqs of held jobs: queued again
}

// Empty reports whether there is nothing to write.
func (b *Batch) Empty() bool {
	return len(b.Accept)+len(b.Begin)+len(b.Finish)+len(b.Sent)+len(b.Cancel)+len(b.Tombstone)+len(b.Release) == 0
}

// Commit writes b as one transaction and returns when it is on stable storage.
// Where it fails nothing of b was written, and b may be committed again. When
// the disk is full and b holds the end of a job, the reserve is given up for it.
func (j *Journal) Commit(b *Batch) error {
	// A context that can end would cost a goroutine per statement, and a write
	// that was begun has to be ended.
	ctx := context.Background()
	err := j.commit(ctx, b)
	if Full(err) && len(b.Finish) > 0 && j.freeReserve() {
		err = j.commit(ctx, b)
	}
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

func (j *Journal) commit(ctx context.Context, b *Batch) (err error) {
	if _, err := j.stmt.begin.ExecContext(ctx); err != nil {
		return err
	}
	n := j.meta.N
	defer func() {
		if err != nil {
			j.meta.N = n
			_, rerr := j.stmt.rollback.ExecContext(ctx)
			_ = rerr // SQLite has rolled back by itself where this fails
		}
	}()
	now := time.Now()
	for _, id := range b.Tombstone {
		if _, err := j.stmt.tombstone.ExecContext(ctx, id, now.UnixMicro()); err != nil {
			return err
		}
	}
	for _, a := range b.Accept {
		if err := j.accept(ctx, a); err != nil {
			return fmt.Errorf("accepting %s: %w", a.Job.ID, err)
		}
	}
	for _, g := range b.Begin {
		j.meta.N++
		g.N = j.meta.N
		if _, err := j.stmt.beginJob.ExecContext(ctx, cbsdmq.Running, now.UnixMicro(),
			int64(j.meta.Epoch), int64(g.N), j.host, j.boot, g.Before, g.Seq); err != nil {
			return err
		}
	}
	for _, a := range b.Accept {
		if a.End != nil && a.Known == nil {
			a.End.Seq = a.Job.Seq
			if err := j.finish(ctx, a.End, now); err != nil {
				return err
			}
		}
	}
	for _, f := range b.Finish {
		if err := j.finish(ctx, f, now); err != nil {
			return err
		}
	}
	for _, s := range b.Sent {
		if _, err := j.stmt.sent.ExecContext(ctx, s.State, now.UnixMicro(), int64(s.PutID), s.Seq, s.Bus, s.Tube); err != nil {
			return err
		}
	}
	for _, seq := range b.Cancel {
		if _, err := j.stmt.flag.ExecContext(ctx, Cancelled, seq); err != nil {
			return err
		}
	}
	for _, seq := range b.Release {
		if _, err := j.stmt.release.ExecContext(ctx, cbsdmq.Queued, seq, cbsdmq.Held); err != nil {
			return err
		}
	}
	if _, err := j.stmt.counters.ExecContext(ctx, int64(j.meta.N), int64(j.meta.Commits+1)); err != nil {
		return err
	}
	if _, err := j.stmt.commit.ExecContext(ctx); err != nil {
		return err
	}
	j.meta.Commits++
	return nil
}

func (j *Journal) finish(ctx context.Context, f *Finish, now time.Time) error {
	_, err := j.stmt.finish.ExecContext(ctx, f.State, now.UnixMicro(), f.Result, f.Output, f.OutSize, f.Seq)
	return err
}

// accept inserts one job, or finds the one that it is.
func (j *Journal) accept(ctx context.Context, a *Accept) error {
	r := a.Job
	a.Known, a.NewAddress, a.Cancelled = nil, false, false
	seq, err := j.insert(ctx, a)
	// Brokers number their jobs each for itself, and again from 1 on: a legacy
	// job's number may be taken by another job.
	for n := 2; err == nil && seq == 0 && r.Flags&Legacy != 0; n++ {
		if a.Known, err = j.known(ctx, r); a.Known != nil || err != nil {
			break
		}
		base, _, _ := strings.Cut(r.ID, ".")
		r.ID = fmt.Sprintf("%s.%d", base, n)
		seq, err = j.insert(ctx, a)
	}
	if err != nil {
		return err
	}
	if seq == 0 && a.Known == nil {
		if a.Known, err = j.known(ctx, r); err != nil {
			return err
		}
	}
	if a.Known != nil {
		seq = a.Known.Seq
		if a.Known.ID != r.ID && r.Flags&Legacy == 0 {
			// The sender's key named a job that it submitted under another id.
			if _, err := j.stmt.alias.ExecContext(ctx, r.ID, seq); err != nil {
				return err
			}
		}
	} else {
		r.Seq = seq
	}
	res, err := j.stmt.address.ExecContext(ctx, seq, a.Address.Bus, a.Address.Tube, a.Address.BrokerID)
	if err != nil {
		return err
	}
	added, err := res.RowsAffected()
	a.NewAddress = added > 0
	return err
}

// insert returns the new row's seq, or 0 where the job is known.
func (j *Journal) insert(ctx context.Context, a *Accept) (int64, error) {
	r := a.Job
	begin := a.Begin
	if r.Flags&Legacy == 0 {
		var one int
		switch err := j.stmt.isTombstone.QueryRowContext(ctx, r.ID).Scan(&one); {
		case err == nil:
			a.Cancelled, begin = true, false
		case !errors.Is(err, sql.ErrNoRows):
			return 0, err
		}
	}
	r.State, r.Begun, r.Epoch, r.N, r.Host, r.Boot = cbsdmq.Queued, time.Time{}, 0, 0, "", ""
	if begin {
		r.State, r.Begun = cbsdmq.Running, r.Accepted
		r.Epoch, r.N, r.Host, r.Boot = j.meta.Epoch, j.meta.N+1, j.host, j.boot
	}
	res, err := j.stmt.insert.ExecContext(ctx, r.ID, r.Ident, r.Sender, r.Key, r.Bus, r.Command, r.Guest, r.Plan,
		r.Flags, r.State, micro(r.Accepted), micro(r.Expires), micro(r.Begun),
		int64(r.Epoch), int64(r.N), r.Host, r.Boot, r.Before)
	if err != nil {
		return 0, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return 0, err
	}
	if begin {
		j.meta.N++
	}
	return res.LastInsertId()
}

// known finds the row that kept r from being inserted, by identity or by the
// sender's key; nil where it was the number of another legacy job.
func (j *Journal) known(ctx context.Context, r *Job) (*Job, error) {
	row := j.stmt.known.QueryRowContext(ctx, r.Ident, r.Sender, r.Key)
	k := new(Job)
	switch err := k.scan(row); {
	case errors.Is(err, sql.ErrNoRows) && r.Flags&Legacy != 0:
		return nil, nil
	case err != nil:
		return nil, err
	}
	return k, nil
}

// micro is the journal's form of a time; the zero time is 0.
func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}

type statements struct {
	all                                                           []*sql.Stmt
	begin, commit, rollback                                       *sql.Stmt
	insert, known, address, beginJob, finish, sent, flag, release *sql.Stmt
	tombstone, isTombstone, alias, counters                       *sql.Stmt
}

func (s *statements) prepare(ctx context.Context, c *sql.Conn) error {
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&s.begin, "BEGIN IMMEDIATE"},
		{&s.commit, "COMMIT"},
		{&s.rollback, "ROLLBACK"},
		{&s.insert, `INSERT INTO job (id, ident, sender, key, bus, command, guest, plan, flags, state, accepted, expires, begun, epoch, n, host, boot, before)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`},
		{&s.known, "SELECT " + jobColumns + ` FROM job WHERE ident = ?1 OR (?3 <> '' AND sender = ?2 AND key = ?3)
			ORDER BY ident = ?1 DESC LIMIT 1`},
		{&s.address, "INSERT INTO address (job, bus, tube, foreign_id, state) VALUES (?, ?, ?, ?, 0) ON CONFLICT DO NOTHING"},
		{&s.beginJob, "UPDATE job SET state = ?, begun = ?, epoch = ?, n = ?, host = ?, boot = ?, before = ? WHERE seq = ?"},
		{&s.finish, "UPDATE job SET state = ?, finished = ?, result = ?, output = ?, outsize = ?, before = NULL WHERE seq = ? AND finished = 0"},
		{&s.sent, "UPDATE address SET state = ?, put = ?, put_id = ? WHERE job = ? AND bus = ? AND tube = ?"},
		{&s.flag, "UPDATE job SET flags = flags | ? WHERE seq = ?"},
		{&s.release, "UPDATE job SET state = ? WHERE seq = ? AND state = ?"},
		{&s.tombstone, "INSERT INTO tombstone VALUES (?, ?) ON CONFLICT DO NOTHING"},
		{&s.alias, "INSERT INTO alias VALUES (?, ?) ON CONFLICT DO NOTHING"},
		{&s.isTombstone, "SELECT 1 FROM tombstone WHERE id = ?"},
		{&s.counters, "UPDATE meta SET value = CASE key WHEN 'n' THEN CAST(?1 AS TEXT) ELSE CAST(?2 AS TEXT) END WHERE key IN ('n', 'commits')"},
	} {
		st, err := c.PrepareContext(ctx, p.sql)
		if err != nil {
			return fmt.Errorf("preparing %q: %w", p.sql, err)
		}
		*p.to = st
		s.all = append(s.all, st)
	}
	return nil
}

func (s *statements) close() {
	for _, st := range s.all {
		st.Close()
	}
}
