package cbsd

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	_ "modernc.org/sqlite" // driver "sqlite"
)

// openFiles bounds the databases of guests that are kept open.
const openFiles = 128

// A store keeps CBSD's SQLite files open, read-only. A file that was replaced
// is opened anew: an open one would be read for ever. No file of it may be
// opened and closed in any other way by this process, since that drops SQLite's
// locks.
type store struct {
	mu     sync.Mutex
	open   map[string]*database
	clock  uint64 // counts uses, for the least recent one
	closed bool
}

// A database is one open file.
type database struct {
	id      identity
	sql     *sql.DB
	used    uint64
	mu      sync.Mutex
	columns map[string][]string // by table
	queries map[*query]prepared
}

// A prepared is a query on one database.
type prepared struct {
	stmt    *sql.Stmt
	columns []string
	width   int // of a row
}

// A query reads columns of the rows of a table. Columns that the table does not
// have, and NULL, are read as "": upgrades of CBSD add columns.
type query struct {
	table   string
	columns []string // nil = all
	extra   string   // an expression to read after them, "" = none
	rest    string   // what follows the name of the table
}

func newStore() *store { return &store{open: make(map[string]*database)} }

func (s *store) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for path, d := range s.open {
		errs = append(errs, d.sql.Close())
		delete(s.open, path)
	}
	return errors.Join(errs...)
}

// rows reads the rows of q from the file path; each has its values in the order
// of the columns that it returns. The error is fs.ErrNotExist where there is no
// file.
func (s *store) rows(ctx context.Context, path string, q *query, args ...any) (columns []string, rows [][]string, err error) {
	for try := 0; ; try++ {
		columns, rows, err = s.read(ctx, path, q, args)
		if err == nil || errors.Is(err, fs.ErrNotExist) || try == 1 {
			break
		}
		s.forget(path) // its schema may have changed, or another goroutine closed it
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return columns, rows, nil
}

// first is rows for a query that gives one row; false where it gives none.
func (s *store) first(ctx context.Context, path string, q *query, args ...any) ([]string, bool, error) {
	_, rows, err := s.rows(ctx, path, q, args...)
	if err != nil || len(rows) == 0 {
		return nil, false, err
	}
	return rows[0], true, nil
}

// record is first with the values by column; nil where it gives no row.
func (s *store) record(ctx context.Context, path string, q *query, args ...any) (map[string]string, error) {
	columns, rows, err := s.rows(ctx, path, q, args...)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	m := make(map[string]string, len(columns))
	for i, c := range columns {
		m[c] = rows[0][i]
	}
	return m, nil
}

func (s *store) read(ctx context.Context, path string, q *query, args []any) ([]string, [][]string, error) {
	d, err := s.get(path)
	if err != nil {
		return nil, nil, err
	}
	// A context that can be cancelled costs a goroutine per statement; busy_timeout bounds the wait.
	ctx = context.WithoutCancel(ctx)
	ready, err := d.prepare(ctx, q)
	if err != nil {
		return nil, nil, err
	}
	rs, err := ready.stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, nil, err
	}
	defer rs.Close()
	var rows [][]string
	for rs.Next() {
		row := make([]string, ready.width)
		cells := make([]any, ready.width)
		for i := range row {
			cells[i] = &row[i]
		}
		if err := rs.Scan(cells...); err != nil {
			return nil, nil, err
		}
		rows = append(rows, row)
	}
	return ready.columns, rows, rs.Err()
}

// get returns the open database of path.
func (s *store) get(path string) (*database, error) {
	info, err := os.Stat(path)
	if err != nil {
		s.forget(path)
		return nil, err
	}
	id := inode(info)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the pool is closed")
	}
	s.clock++
	if d, ok := s.open[path]; ok {
		if d.id == id {
			d.used = s.clock
			return d, nil
		}
		delete(s.open, path)
		d.sql.Close()
	}
	s.evict()
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?mode=ro&_pragma=busy_timeout(3000)&_pragma=query_only(1)"
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, err
	}
	// Opening one more takes longer than waiting for one of these.
	db.SetMaxOpenConns(2)
	db.SetMaxIdleConns(2)
	d := &database{id: id, sql: db, used: s.clock, columns: make(map[string][]string), queries: make(map[*query]prepared)}
	s.open[path] = d
	return d, nil
}

// evict closes the least recently used database when there are too many.
func (s *store) evict() {
	if len(s.open) < openFiles {
		return
	}
	var oldest string
	for path, d := range s.open {
		if oldest == "" || d.used < s.open[oldest].used {
			oldest = path
		}
	}
	s.open[oldest].sql.Close()
	delete(s.open, oldest)
}

func (s *store) forget(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.open[path]; ok {
		delete(s.open, path)
		d.sql.Close()
	}
}

// columnsOf lists the columns of a table; the error says where there is none.
// d.mu is held.
func (d *database) columnsOf(ctx context.Context, table string) ([]string, error) {
	if c, ok := d.columns[table]; ok {
		return c, nil
	}
	rs, err := d.sql.QueryContext(ctx, "SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		return nil, err
	}
	defer rs.Close()
	var names []string
	for rs.Next() {
		var name string
		if err := rs.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	if err := rs.Err(); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no table %s", table)
	}
	d.columns[table] = names
	return names, nil
}

func (d *database) prepare(ctx context.Context, q *query) (prepared, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.queries[q]; ok {
		return s, nil
	}
	there, err := d.columnsOf(ctx, q.table)
	if err != nil {
		return prepared{}, err
	}
	columns := q.columns
	if columns == nil {
		columns = there
	}
	exprs := make([]string, len(columns))
	for i, c := range columns {
		exprs[i] = "''"
		if slices.Contains(there, c) {
			exprs[i] = `ifnull(CAST("` + c + `" AS TEXT),'')` // text, whatever type the column is declared to have
		}
	}
	if q.extra != "" {
		exprs = append(exprs, "ifnull(CAST("+q.extra+" AS TEXT),'')")
	}
	s, err := d.sql.PrepareContext(ctx, "SELECT "+strings.Join(exprs, ",")+" FROM "+q.table+" "+q.rest)
	if err != nil {
		return prepared{}, err
	}
	d.queries[q] = prepared{s, columns, len(exprs)}
	return d.queries[q], nil
}
