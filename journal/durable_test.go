package journal

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"
	"time"
)

// settings are what makes a returned Commit survive a power loss: with a
// write-ahead log, synchronous = FULL (2) syncs it at each commit
// (sqlite.org/pragma.html#pragma_synchronous).
func settings(t testing.TB, c *sql.Conn) (mode string, synchronous int) {
	t.Helper()
	if err := c.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&mode); err != nil {
		t.Fatal(err)
	}
	if err := c.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&synchronous); err != nil {
		t.Fatal(err)
	}
	return mode, synchronous
}

func TestCommitsAreSynced(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			o := testOptions(t.TempDir())
			for _, o.Mode = range []string{mode, "wal", mode} { // an existing journal changes its mode
				j, err := Open(t.Context(), o)
				if err != nil {
					t.Fatal(err)
				}
				check := func(when string) {
					if is, sync := settings(t, j.write); is != o.Mode || sync != 2 {
						t.Errorf("%s: journal_mode %s, synchronous %d, want %s, 2", when, is, sync, o.Mode)
					}
				}
				check("after open")
				if err := j.Commit(&Batch{}); err != nil {
					t.Fatal(err)
				}
				check("after a commit")
				fill(t, j)
				big := testAccept(testID(1))
				big.Job.Plan = make([]byte, 1<<20)
				if err := j.Commit(&Batch{Accept: []*Accept{big}}); !Full(err) {
					t.Fatalf("a commit into a full database: %v", err)
				}
				check("after a failed commit")
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if _, err := j.Prune(ctx, time.Now(), Limits{}); !errors.Is(err, context.Canceled) {
					t.Fatalf("Prune with an ended context: %v", err)
				}
				check("after an interrupted Prune")
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// If the connection breaks, database/sql must not put one in its place that
// nobody has set up: the journal fails until it is opened again.
func TestWriteConnectionIsNeverReplaced(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	accept(t, j, testAccept(testID(1)))
	if err := j.write.Raw(func(any) error { return driver.ErrBadConn }); !errors.Is(err, driver.ErrBadConn) {
		t.Fatal(err)
	}
	for range 2 {
		if err := j.Commit(&Batch{Accept: []*Accept{testAccept(testID(2))}}); err == nil {
			t.Fatal("a commit went through a connection that was never set up")
		}
	}
	j = reopen(t, j, dir)
	defer j.Close()
	if js := openJobs(t, j); len(js) != 1 {
		t.Errorf("open: %v", ids(js))
	}
	accept(t, j, testAccept(testID(2)))
}
