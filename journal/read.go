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

// A Reader answers questions about a journal without waiting for its writer.
// It may be used by many goroutines.
type Reader struct {
	db   *sql.DB
	path string
}

// NewReader reads the journal at path through db, see OpenReader.
func NewReader(db *sql.DB, path string) Reader { return Reader{db: db, path: path} }

const jobColumns = `seq, id, ident, sender, key, bus, command, guest, signer, signkey, flags, state, accepted, expires,
	begun, finished, epoch, n, host, boot, outsize, result, before, plan`

// Conditions on jobs and addresses that have to be answered from an index.
const (
	whereOpen = "WHERE finished = 0 AND plan IS NOT NULL ORDER BY seq"
	whereID   = "WHERE seq = (SELECT seq FROM job WHERE id = ?1 UNION ALL SELECT job FROM alias WHERE id = ?1 LIMIT 1)"
	// 'A' follows '@', see LegacyIdent.
	whereLegacy = `WHERE seq = (SELECT max(seq) FROM (SELECT seq FROM job WHERE ident <> id AND ident = ?1
		UNION ALL SELECT seq FROM job WHERE ident <> id AND ident > ?1 || '@' AND ident < ?1 || 'A'))`
	whereNewest = `WHERE seq < CASE ?1 WHEN '' THEN 9223372036854775807 ELSE (SELECT seq FROM job WHERE id = ?1) END
		AND (?2 = '' OR state = ?2) AND accepted >= ?4 AND (?5 = '' OR guest = ?5) ORDER BY seq DESC LIMIT ?3`
	whereOwed     = "WHERE state = 0 AND EXISTS (SELECT 1 FROM job WHERE seq = address.job AND finished > 0) ORDER BY job"
	whereOwedByID = "WHERE state = 0 AND foreign_id = 1 AND bus = ?"
)

func (r *Job) scan(row scanner) error {
	var accepted, expires, begun, finished, epoch, n int64
	err := row.Scan(&r.Seq, &r.ID, &r.Ident, &r.Sender, &r.Key, &r.Bus, &r.Command, &r.Guest, &r.Signer, &r.SignKey, &r.Flags, &r.State,
		&accepted, &expires, &begun, &finished, &epoch, &n, &r.Host, &r.Boot, &r.OutSize, &r.Result, &r.Before, &r.Plan)
	r.Accepted, r.Expires, r.Begun, r.Finished = fromMicro(accepted), fromMicro(expires), fromMicro(begun), fromMicro(finished)
	r.Epoch, r.N = uint64(epoch), uint64(n)
	return err
}

func (r Reader) jobs(ctx context.Context, where string, args ...any) ([]*Job, error) {
	return list(ctx, r, "SELECT "+jobColumns+" FROM job "+where, (*Job).scan, args...)
}

func (r Reader) one(ctx context.Context, where string, args ...any) (*Job, error) {
	js, err := r.jobs(ctx, where, args...)
	if err != nil || len(js) == 0 {
		return nil, err
	}
	return js[0], nil
}

// list runs a query and scans each of its rows.
func list[T any](ctx context.Context, r Reader, query string, scan func(*T, scanner) error, args ...any) (out []*T, err error) {
	defer func() { err = explain("reading journal", r.path, err) }()
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		v := new(T)
		if err := scan(v, rows); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// Open returns the jobs that have not ended, in order of acceptance.
func (r Reader) Open(ctx context.Context) ([]*Job, error) {
	return r.jobs(ctx, whereOpen)
}

// Job returns the job with this id, or with an alias of it. Nil: there is none.
func (r Reader) Job(ctx context.Context, id string) (*Job, error) {
	return r.one(ctx, whereID, id)
}

// BySeq returns the job with this number, or nil.
func (r Reader) BySeq(ctx context.Context, seq int64) (*Job, error) {
	return r.one(ctx, "WHERE seq = ?", seq)
}

// Keyed returns the job that a sender has given the name key, signed by signer
// where that is not "". Nil: there is none.
func (r Reader) Keyed(ctx context.Context, signer, sender, key string) (*Job, error) {
	return r.one(ctx, "WHERE signer = ? AND sender = ? AND key = ? AND key <> ''", signer, sender, key)
}

// LegacyIdent is the identity of the nth job that a broker gave the same number
// and the same body as ident; the first one has ident itself.
func LegacyIdent(ident string, n int) string { return fmt.Sprintf("%s@%d", ident, n) }

// Legacy returns the newest job with this identity or with one made of it by
// LegacyIdent, and its n: the next one is LegacyIdent(ident, n+1). Nil and 0:
// there is none.
func (r Reader) Legacy(ctx context.Context, ident string) (*Job, int, error) {
	j, err := r.one(ctx, whereLegacy, ident)
	if err != nil || j == nil {
		return nil, 0, err
	}
	n := 1
	if suffix, ok := strings.CutPrefix(j.Ident, ident+"@"); ok {
		if n, err = strconv.Atoi(suffix); err != nil {
			return nil, 0, fmt.Errorf("reading the journal: identity %q: %w", j.Ident, err)
		}
	}
	return j, n, nil
}

// Newest returns at most limit jobs, the newest first; with a state only those
// in it, and with the id of a job only those accepted before it: none where
// that job is forgotten.
func (r Reader) Newest(ctx context.Context, limit int, state cbsdmq.State, before string) ([]*Job, error) {
	return r.Search(ctx, limit, Search{State: state, Before: before})
}

// A Search chooses jobs; what is empty is not looked at.
type Search struct {
	State  cbsdmq.State
	Before string // only those accepted before the job with this id: none where that is forgotten
	Guest  string
	Since  time.Time // only those accepted since
}

// Search returns at most limit jobs, the newest first.
func (r Reader) Search(ctx context.Context, limit int, s Search) ([]*Job, error) {
	return r.jobs(ctx, whereNewest, s.Before, string(s.State), limit, micro(s.Since), s.Guest)
}

// An Owe is a reply that an address waits for, or has been sent.
type Owe struct {
	Seq     int64
	Address Address
	State   AddressState
	Sent    time.Time
	PutID   uint64
}

func (o *Owe) scan(row scanner) error {
	var put, id int64
	err := row.Scan(&o.Seq, &o.Address.Bus, &o.Address.Tube, &o.Address.BrokerID, &o.State, &put, &id)
	o.Sent, o.PutID = fromMicro(put), uint64(id)
	return err
}

// Addresses returns the addresses of one job.
func (r Reader) Addresses(ctx context.Context, seq int64) ([]Owe, error) {
	return r.owes(ctx, "WHERE job = ?", seq)
}

// Owed returns the addresses of ended jobs that have not had their last reply.
func (r Reader) Owed(ctx context.Context) ([]Owe, error) {
	return r.owes(ctx, whereOwed)
}

// Broker returns the incarnation of a broker that was noted last, "" if none
// was, and the seq of the first job that came after that.
func (r Reader) Broker(ctx context.Context, bus string) (instance string, since int64, err error) {
	err = r.db.QueryRowContext(ctx, "SELECT instance, since FROM broker WHERE bus = ?", bus).Scan(&instance, &since)
	if errors.Is(err, sql.ErrNoRows) {
		return "", 0, nil
	}
	return instance, since, explain("reading journal", r.path, err)
}

// OwedByID returns the addresses on a bus that have not had their last reply
// and are named after an id of the broker; their jobs may not have ended.
func (r Reader) OwedByID(ctx context.Context, bus string) ([]Owe, error) {
	return r.owes(ctx, whereOwedByID, bus)
}

func (r Reader) owes(ctx context.Context, where string, args ...any) ([]Owe, error) {
	return values(list(ctx, r, "SELECT job, bus, tube, foreign_id, state, put, put_id FROM address "+where, (*Owe).scan, args...))
}

// Bytes is the size of the journal's file, with its log.
func (r Reader) Bytes() int64 { return fileSize(r.path) + fileSize(r.path+"-wal") }

// Check looks through the whole journal for damage, a few seconds for each GB.
func (r Reader) Check(ctx context.Context) error {
	err := checkLength(ctx, r.db, r.path)
	if err == nil {
		err = integrity(ctx, r.db, r.path)
	}
	return explain("checking journal", r.path, err)
}
