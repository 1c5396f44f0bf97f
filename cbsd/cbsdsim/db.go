package cbsdsim

import (
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	_ "modernc.org/sqlite"
)

var (
	//go:embed schema/local.sql
	localSchema string
	//go:embed schema/nodes.sql
	nodesSchema string
	//go:embed schema/cbsdtaskd.sql
	taskSchema string
	//go:embed schema/storage_media.sql
	mediaSchema string
	//go:embed schema/images.sql
	imagesSchema string
	//go:embed schema/bhyve.sql
	bhyveSchema string
	//go:embed schema/qemu.sql
	qemuSchema string
)

// A db is one SQLite file. Everything in it is text to us, as it is to a shell.
type db struct{ sql *sql.DB }

func openDB(file, mode string) (*db, error) {
	// nothing here has to survive a power cut, so no write is synced
	dsn := "file:" + (&url.URL{Path: file}).EscapedPath() +
		"?mode=" + mode + "&_txlock=immediate&_pragma=busy_timeout(25000)&_pragma=synchronous(OFF)"
	s, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", file, err)
	}
	s.SetMaxOpenConns(1)
	return &db{s}, nil
}

func openExisting(file string) (*db, error) { return openDB(file, "rw") }

func createDB(file, ddl string) (*db, error) {
	d, err := openDB(file, "rwc")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(d.exec("PRAGMA journal_mode=WAL"), d.exec("BEGIN;"+ddl+";COMMIT")); err != nil {
		return nil, errors.Join(fmt.Errorf("creating %s: %w", file, err), d.close())
	}
	return d, nil
}

func (d *db) close() error { return d.sql.Close() }

func (d *db) exec(query string, args ...any) error {
	_, err := d.sql.Exec(query, args...)
	return err
}

// A row has its columns in order and their values by name; NULL is "".
type row struct {
	columns []string
	values  map[string]string
}

func (r row) get(column string) string { return r.values[column] }

func (d *db) query(query string, args ...any) ([]row, error) {
	rs, err := d.sql.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rs.Close()
	columns, err := rs.Columns()
	if err != nil {
		return nil, err
	}
	var rows []row
	cells := make([]any, len(columns))
	dest := make([]any, len(columns))
	for i := range cells {
		dest[i] = &cells[i]
	}
	for rs.Next() {
		if err := rs.Scan(dest...); err != nil {
			return nil, err
		}
		r := row{columns: columns, values: make(map[string]string, len(columns))}
		for i, name := range columns {
			r.values[name] = text(cells[i])
		}
		rows = append(rows, r)
	}
	return rows, rs.Err()
}

// text is a value as the sqlite3 shell prints it; the driver makes bool and
// time.Time of what columns are declared as.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []byte:
		return string(v)
	case bool:
		if v {
			return "1"
		}
		return "0"
	case time.Time:
		return strconv.FormatInt(v.Unix(), 10)
	}
	return fmt.Sprint(v)
}

// first is the first row of a query, or an empty one.
func (d *db) first(query string, args ...any) (row, error) {
	rows, err := d.query(query, args...)
	if err != nil || len(rows) == 0 {
		return row{}, err
	}
	return rows[0], nil
}

func (d *db) insert(table string, kv [][2]string) error {
	names := make([]string, len(kv))
	args := make([]any, len(kv))
	for i, p := range kv {
		names[i], args[i] = p[0], p[1]
	}
	return d.exec(fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s)",
		table, strings.Join(names, ","), strings.Repeat(",?", len(kv)-1)), args...)
}

// hasColumn tells whether table has column. Names of columns come from
// arguments, and may only then be part of a statement.
func (d *db) hasColumn(table, column string) (bool, error) {
	r, err := d.first("SELECT count(*) AS n FROM pragma_table_info(?) WHERE name = ?", table, column)
	return r.get("n") == "1", err
}

// with opens file for the time of f.
func with(file string, f func(*db) error) error {
	d, err := openExisting(file)
	if err != nil {
		return err
	}
	return errors.Join(f(d), d.close())
}
