package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
)

// A Reader answers questions about a journal without waiting for its writer.
type Reader struct {
	db   *sql.DB
	path string
}

// NewReader reads the journal at path through db, see OpenReader.
func NewReader(db *sql.DB, path string) Reader { return Reader{db: db, path: path} }

const jobColumns = `seq, id, ident, sender, key, bus, command, guest, plan, flags, state, accepted, expires,
	begun, finished, epoch, n, host, boot, before, result, outsize`

func (r *Job) scan(row interface{ Scan(...any) error }) error {
	var accepted, expires, begun, finished, epoch, n int64
	err := row.Scan(&r.Seq, &r.ID, &r.Ident, &r.Sender, &r.Key, &r.Bus, &r.Command, &r.Guest, &r.Plan, &r.Flags,
		&r.State, &accepted, &expires, &begun, &finished, &epoch, &n, &r.Host, &r.Boot, &r.Before, &r.Result, &r.OutSize)
	r.Accepted, r.Expires, r.Begun, r.Finished = fromMicro(accepted), fromMicro(expires), fromMicro(begun), fromMicro(finished)
	r.Epoch, r.N = uint64(epoch), uint64(n)
	return err
}

func (r Reader) jobs(ctx context.Context, where string, args ...any) ([]*Job, error) {
	rows, err := r.db.QueryContext(ctx, "SELECT "+jobColumns+" FROM job "+where, args...)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	defer rows.Close()
	var out []*Job
	for rows.Next() {
		j := new(Job)
		if err := j.scan(rows); err != nil {
			return nil, fmt.Errorf("reading the journal: %w", err)
		}
		out = append(out, j)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	return out, nil
}

// Open returns the jobs that have not ended, in order of acceptance.
func (r Reader) Open(ctx context.Context) ([]*Job, error) {
	return r.jobs(ctx, "WHERE finished = 0 ORDER BY seq")
}

// Job returns the job with this id, or with an alias of it; of legacy jobs
// with one number the newest. Nil: there is none.
func (r Reader) Job(ctx context.Context, id string) (*Job, error) {
	return r.one(ctx, `WHERE seq = (SELECT seq FROM job WHERE id = ?1 UNION ALL SELECT job FROM alias WHERE id = ?1 LIMIT 1)`, id)
}

// BySeq returns the job with this number, or nil.
func (r Reader) BySeq(ctx context.Context, seq int64) (*Job, error) {
	return r.one(ctx, "WHERE seq = ?", seq)
}

// LegacyIdent is the identity of the nth job that a broker gave the same number
// and the same body as ident; the first one has ident itself.
func LegacyIdent(ident string, n int) string { return fmt.Sprintf("%s@%d", ident, n) }

// Legacy returns the newest job with this identity or with one made of it by
// LegacyIdent, and how many of them there are. Nil: there is none.
func (r Reader) Legacy(ctx context.Context, ident string) (*Job, int, error) {
	// 'A' follows '@'.
	js, err := r.jobs(ctx, "WHERE ident = ?1 OR ident > ?1 || '@' AND ident < ?1 || 'A' ORDER BY seq DESC", ident)
	if err != nil || len(js) == 0 {
		return nil, 0, err
	}
	return js[0], len(js), nil
}

func (r Reader) one(ctx context.Context, where string, args ...any) (*Job, error) {
	js, err := r.jobs(ctx, where, args...)
	if err != nil || len(js) == 0 {
		return nil, err
	}
	return js[0], nil
}

// Newest returns at most limit jobs, the newest first; with a state only those
// in it, and with the id of a job only those accepted before it.
func (r Reader) Newest(ctx context.Context, limit int, state cbsdmq.State, before string) ([]*Job, error) {
	return r.jobs(ctx, `WHERE (?1 = '' OR state = ?1) AND seq < coalesce((SELECT seq FROM job WHERE id = ?2), 9223372036854775807)
		ORDER BY seq DESC LIMIT ?3`, state, before, limit)
}

// An Owe is a reply that an address waits for, or has been sent.
type Owe struct {
	Seq     int64
	Address Address
	Sent    time.Time
	PutID   uint64
}

// Addresses returns the addresses of one job.
func (r Reader) Addresses(ctx context.Context, seq int64) ([]Owe, error) {
	return r.owes(ctx, "WHERE job = ?", seq)
}

// Owed returns the addresses of ended jobs that have not had their last reply.
func (r Reader) Owed(ctx context.Context) ([]Owe, error) {
	return r.owes(ctx, "WHERE state = 0 AND job IN (SELECT seq FROM job WHERE finished > 0) ORDER BY job")
}

// Unread returns at most limit replies that were put before t and may still
// lie on the broker.
func (r Reader) Unread(ctx context.Context, t time.Time, limit int) ([]Owe, error) {
	return r.owes(ctx, "WHERE state = 1 AND put < ? ORDER BY put LIMIT ?", t.UnixMicro(), limit)
}

func (r Reader) owes(ctx context.Context, where string, args ...any) ([]Owe, error) {
	rows, err := r.db.QueryContext(ctx, "SELECT job, bus, tube, foreign_id, put, put_id FROM address "+where, args...)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	defer rows.Close()
	var out []Owe
	for rows.Next() {
		var o Owe
		var put, id int64
		if err := rows.Scan(&o.Seq, &o.Address.Bus, &o.Address.Tube, &o.Address.BrokerID, &put, &id); err != nil {
			return nil, fmt.Errorf("reading the journal: %w", err)
		}
		o.Sent, o.PutID = fromMicro(put), uint64(id)
		out = append(out, o)
	}
	return out, rows.Err()
}

// Output opens the stdout of an ended job. It is empty where it was dropped.
func (r Reader) Output(ctx context.Context, seq int64) (io.ReadSeekCloser, error) {
	var b []byte
	var inline bool
	err := r.db.QueryRowContext(ctx, "SELECT output, output IS NOT NULL FROM job WHERE seq = ?", seq).Scan(&b, &inline)
	if err != nil {
		return nil, fmt.Errorf("reading the output of job %d: %w", seq, err)
	}
	if !inline {
		f, err := os.Open(outputFile(r.path, seq))
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("reading the output of job %d: %w", seq, err)
		}
	}
	return nopCloser{strings.NewReader(string(b))}, nil
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// outputFile is where stdout of a job lies that is too long for its row.
func outputFile(path string, seq int64) string {
	return filepath.Join(filepath.Dir(path), "output", strconv.FormatInt(seq, 10)+".out")
}

// SaveOutput writes the stdout of a job to disk, synced, before its Finish is
// committed.
func (j *Journal) SaveOutput(seq int64, src io.Reader) (err error) {
	name := outputFile(j.path, seq)
	defer func() {
		if err != nil {
			os.Remove(name)
			err = fmt.Errorf("keeping the output of job %d: %w", seq, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, src)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
