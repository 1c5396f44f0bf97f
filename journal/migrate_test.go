package journal

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
)

// The schema that version 1 made its journals with.
//
//go:embed testdata/schema1.sql
var schema1 string

// formerJournal makes a journal of version 1 with so many jobs, and returns what
// they are.
func formerJournal(t *testing.T, dir string, jobs int) Options {
	t.Helper()
	o := testOptions(dir)
	if err := makeDir(o.State); err != nil {
		t.Fatal(err)
	}
	if err := makeDir(filepath.Dir(o.Path)); err != nil {
		t.Fatal(err)
	}
	host, err := hostID(o.State)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", o.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	run := func(q string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), q, args...); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	run("PRAGMA journal_mode = wal")
	run("BEGIN")
	run(schema1)
	run(fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	run("PRAGMA user_version = 1")
	run("INSERT INTO meta (one, pool, generation, epoch, n, commits, host, saved) VALUES (1, 'former', 3, 1, ?, ?, ?, ?)", jobs, jobs+7, host, time.Now().UnixMicro())
	for i := range jobs {
		// Begun and ended with output, but for the last two: one runs, one waits.
		state, begun, finished, output := cbsdmq.Done, i+1, i+1, []byte(strings.Repeat(string(rune('a'+i%26)), 20_000))
		switch i {
		case jobs - 2:
			state, finished, output = cbsdmq.Running, 0, nil
		case jobs - 1:
			state, begun, finished, output = cbsdmq.Queued, 0, 0, nil
		}
		run(`INSERT INTO job (seq, id, ident, sender, key, bus, command, guest, flags, state, accepted, expires, begun, finished, epoch, n, host, boot, outsize, result, before, plan, output)
			VALUES (?, ?, ?, 'shop', ?, 'mem', 'jstart', 'jail1', 1, ?, ?, 0, ?, ?, 1, ?, 'host1', 'boot1', ?, CAST('{"ErrCode":0}' AS BLOB), NULL, CAST('{}' AS BLOB), ?)`,
			i+1, testID(i), testID(i), fmt.Sprint("order ", i), string(state), i+1, begun, finished, i+1, len(output), output)
		run("INSERT INTO address VALUES (?, 'mem', 'reply1', 0, ?, 0, 0)", i+1, i%2)
	}
	run("INSERT INTO alias VALUES (?, 1)", testID(900))
	run("INSERT INTO tombstone VALUES (?, 5)", testID(901))
	for bus, instance := range map[string]string{"mem": "2 server one", "nats": "noted before", "old": "alone", "kafka": "7 "} {
		run("INSERT INTO broker VALUES (?, ?)", bus, instance)
	}
	run("COMMIT")
	return o
}

// rowsOf is what version 1 knew, in a journal of any version.
func rowsOf(t *testing.T, path string) (version int, rows []string) {
	t.Helper()
	db, err := openReader(path, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), "PRAGMA user_version").Scan(&version); err != nil {
		t.Fatal(err)
	}
	broker := "bus || instance"
	if version > 1 {
		broker = "bus || CASE WHEN since < 9223372036854775807 THEN since || ' ' ELSE '' END || instance"
	}
	list, err := db.QueryContext(t.Context(), `
		SELECT 'meta' || pool || generation || ' ' || epoch || ' ' || n || ' ' || host || past_journal || past_seen FROM meta
		UNION ALL SELECT 'job' || seq || id || ident || sender || key || bus || command || guest || flags || state || accepted || ' ' || expires
			|| ' ' || begun || ' ' || finished || ' ' || epoch || ' ' || n || host || boot || outsize || coalesce(result, '-') || coalesce(before, '-') || plan || coalesce(hex(output), '-') FROM job
		UNION ALL SELECT 'address' || job || bus || tube || foreign_id || state || put || put_id FROM address
		UNION ALL SELECT 'alias' || id || job FROM alias
		UNION ALL SELECT 'tombstone' || id || at FROM tombstone
		UNION ALL SELECT 'broker' || `+broker+` FROM broker`)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	for list.Next() {
		var s string
		if err := list.Scan(&s); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, s)
	}
	if err := list.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(rows)
	return version, rows
}

func TestMigrate(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			o := formerJournal(t, dir, 6)
			o.Mode = mode
			version, before := rowsOf(t, o.Path)
			if version != 1 {
				t.Fatalf("version %d was made", version)
			}
			if err := Verify(t.Context(), o.Path, o.Mode); err != nil {
				t.Errorf("check of a journal that is to be migrated: %v", err)
			}
			_, err := OpenReader(o.Path)
			wantHint(t, err, cbsdmq.CodeBadConfig, "start the agent of this version")

			j, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			saved := o.Path + ".v1"
			if m := j.Migrated(); m == nil || *m != (Migration{From: 1, Copy: saved}) {
				t.Errorf("said of it: %+v", m)
			}
			if j.Past() != nil {
				t.Errorf("taken for a rollback: %v", j.Past())
			}
			if js := openJobs(t, j); len(js) != 2 || js[0].State != cbsdmq.Running || js[1].State != cbsdmq.Queued {
				t.Errorf("open jobs: %v", ids(js))
			}
			for bus, want := range map[string]struct {
				instance string
				since    int64
			}{"mem": {"server one", 2}, "nats": {"noted before", math.MaxInt64}, "old": {"alone", math.MaxInt64}, "kafka": {"", 7}, "new": {"", 0}} {
				instance, since, err := j.Reader().Broker(t.Context(), bus)
				if err != nil || instance != want.instance || since != want.since {
					t.Errorf("broker %s: %q since %d, %v", bus, instance, since, err)
				}
			}
			signed := testAccept(testID(50))
			signed.Job.Signer, signed.Job.SignKey = "shop", "a2V5"
			if r := accept(t, j, signed); r.Signer != "shop" || r.SignKey != "a2V5" || r.Seq != 7 {
				t.Errorf("a signed job came back as %+v", r)
			}
			commit(t, j, Batch{Finish: []*Finish{done(6, "")}})
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}

			// The copy is the former journal, for the agent's user only.
			version, rows := rowsOf(t, saved)
			if d := cmp.Diff(before, rows); d != "" || version != 1 {
				t.Errorf("the copy has version %d (-want +got):\n%s", version, d)
			}
			if fi, err := os.Stat(saved); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("the copy has mode %v, %v", fi.Mode(), err)
			}
			if j, err = Open(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			if j.Migrated() != nil {
				t.Error("it was migrated twice")
			}
		})
	}
}

// What was migrated is what is made anew, to the letter.
func TestMigratedSchema(t *testing.T) {
	schemaOf := func(j *Journal) (list []string) {
		rows, err := j.Reader().db.QueryContext(t.Context(), "SELECT name || coalesce(sql, '') FROM sqlite_schema ORDER BY name")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var s string
			if err := rows.Scan(&s); err != nil {
				t.Fatal(err)
			}
			list = append(list, s)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return list
	}
	fresh := openTest(t, t.TempDir())
	defer fresh.Close()
	j, err := Open(t.Context(), formerJournal(t, t.TempDir(), 2))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if d := cmp.Diff(schemaOf(fresh), schemaOf(j)); d != "" {
		t.Errorf("(-made +migrated):\n%s", d)
	}
}

func migrateUntilKilled() error {
	_, err := Open(context.Background(), testOptions(os.Getenv("JOURNAL_TEST_DIR")))
	return err
}

// Killed at any moment of a migration, a journal has all that it had, under the
// one schema or the other, and the next agent ends what was begun.
func TestKilledMigration(t *testing.T) {
	const jobs = 400
	rounds := 9
	if testing.Short() {
		rounds = 4
	}
	copying, changing, round := 0, 0, 0
	// On a machine that does much else a child may be done before it is looked at.
	for ; round < rounds || changing == 0 && round < 10*rounds; round++ {
		dir := memoryDir(t)
		o := formerJournal(t, dir, jobs)
		_, before := rowsOf(t, o.Path)
		cmd := childCommand(t, "migrate", dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// When the copy is being made; or when so much of the change is in the log.
		threshold := int64(100_000) * int64(1+round%rounds)
		deadline := time.Now().Add(10 * time.Second)
		for time.Now().Before(deadline) {
			if round%3 == 0 && fileSize(o.Path+".v1.new") > 0 {
				break
			}
			if _, err := os.Stat(o.Path + ".v1"); err == nil && (round%3 == 0 || fileSize(o.Path+"-wal") > threshold) {
				break
			}
		}
		cmd.Process.Kill()
		_ = cmd.Wait() // killed, or it was faster
		_, copied := os.Stat(o.Path + ".v1")
		version, rows := rowsOf(t, o.Path)
		if d := cmp.Diff(before, rows); d != "" {
			t.Fatalf("round %d, version %d (-want +got):\n%s", round, version, d)
		}
		switch {
		case version == 1 && copied != nil:
			copying++
		case version == 1:
			changing++
		}
		j, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if (j.Migrated() != nil) != (version == 1) || j.Past() != nil {
			t.Errorf("round %d: migrated %v, past %v", round, j.Migrated(), j.Past())
		}
		if err := j.Reader().Check(t.Context()); err != nil {
			t.Error(err)
		}
		j.Close()
		if version, rows = rowsOf(t, o.Path); version != schemaVersion || !slices.Equal(rows, before) {
			t.Errorf("round %d: version %d, %d rows of %d", round, version, len(rows), len(before))
		}
		left, _ := filepath.Glob(filepath.Dir(o.Path) + "/*")
		for _, name := range left {
			if !regexp.MustCompile(`journal\.sqlite(\.v1|\.lock|-wal|-shm)?$`).MatchString(name) {
				t.Errorf("round %d: it left %s", round, name)
			}
		}
	}
	t.Logf("%d killed while it copied, %d while it changed the schema, of %d", copying, changing, round)
	if changing == 0 {
		t.Error("no migration was killed at work: nothing was shown")
	}
}
