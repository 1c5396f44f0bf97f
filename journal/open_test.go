package journal

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cbsd/cbsdmq"
)

func TestModes(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(dir)
	o.Path = filepath.Join(dir, "pool", "var", "db", "cbsdmq", "journal.sqlite")
	o.Reserve = 4096
	j, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	accept(t, j, testAccept(testID(1)))
	if err := j.SaveOutput(1, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := d.Info()
		name, _ := filepath.Rel(dir, path)
		if strings.HasPrefix(name, "state/pool-") {
			name = "state/pool-ID.json"
		}
		got[name] = fi.Mode().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const dirMode, fileMode = "drwx------", "-rw-------"
	want := map[string]string{
		"pool": dirMode, "pool/var": dirMode, "pool/var/db": dirMode, "pool/var/db/cbsdmq": dirMode,
		"pool/var/db/cbsdmq/journal.sqlite":         fileMode,
		"pool/var/db/cbsdmq/journal.sqlite-shm":     fileMode,
		"pool/var/db/cbsdmq/journal.sqlite-wal":     fileMode,
		"pool/var/db/cbsdmq/journal.sqlite.lock":    fileMode,
		"pool/var/db/cbsdmq/journal.sqlite.reserve": fileMode,
		"pool/var/db/cbsdmq/output":                 dirMode,
		"pool/var/db/cbsdmq/output/1.out":           fileMode,
		"state":                                     dirMode,
		"state/hostid":                              fileMode,
		"state/pool-ID.json":                        fileMode,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	refused := func(path string, pid int) {
		t.Helper()
		o := testOptions(dir)
		o.Path, o.Host = path, "host2"
		_, err := Open(t.Context(), o)
		locked, ok := errors.AsType[*LockedError](err)
		if !ok || locked.Holder.PID != pid || locked.Holder.Host != "host1" || locked.Holder.Since.IsZero() {
			t.Fatalf("got %v", err)
		}
		if want := fmt.Sprintf("pid %d on host1", pid); !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
		wantHint(t, err, cbsdmq.CodeHeld, "stop that agent")
	}
	path := testOptions(dir).Path
	refused(path, os.Getpid())
	for name, target := range map[string]string{"file": path, "dir": filepath.Dir(path)} {
		link := filepath.Join(dir, name)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	refused(filepath.Join(dir, "file"), os.Getpid())
	refused(filepath.Join(dir, "dir", "journal.sqlite"), os.Getpid())
	accept(t, j, testAccept(testID(1))) // the holder was not disturbed
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	cmd := childCommand(t, "hold", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "open\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	refused(path, cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	j = openTest(t, dir)
	defer j.Close()
	if js := openJobs(t, j); len(js) != 1 {
		t.Errorf("after the holder was killed: %v", ids(js))
	}
}

func TestUnnamedHolder(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	defer j.Close()
	lock := testOptions(dir).Path + ".lock"
	for _, text := range []string{"", `{"host":"ho`} {
		if err := os.WriteFile(lock, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), testOptions(dir))
		if locked, ok := errors.AsType[*LockedError](err); !ok || locked.Holder != (Holder{}) || strings.Contains(err.Error(), "pid") {
			t.Errorf("lock with %q: %v", text, err)
		}
	}
}

// What Open finds in place of a journal, and what it says.
func TestOpenRefuses(t *testing.T) {
	execSQL := func(t *testing.T, path string, qs ...string) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, q := range qs {
			if _, err := db.ExecContext(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(t *testing.T, path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, path string) // over a good journal, closed
		code cbsdmq.Code
		text string // in the error or its hint
		hint string
	}{
		"newer version": {
			func(t *testing.T, p string) { execSQL(t, p, "PRAGMA user_version = 7") },
			cbsdmq.CodeBadConfig, "schema version 7, this cbsdmq knows 2", "install the cbsdmq that wrote it",
		},
		"other database": {
			func(t *testing.T, p string) { os.Remove(p); execSQL(t, p, "CREATE TABLE jails (jname TEXT)") },
			cbsdmq.CodeBadConfig, "not a journal of cbsdmq", `key "journal"`,
		},
		"other application": {
			func(t *testing.T, p string) { execSQL(t, p, "PRAGMA application_id = 1") },
			cbsdmq.CodeBadConfig, "not a journal of cbsdmq", `key "journal"`,
		},
		"no database": {
			func(t *testing.T, p string) { write(t, p, strings.Repeat("not a database. ", 1000)) },
			cbsdmq.CodeUnavailable, "not a database", `name another file with the key "journal"`,
		},
		"no identity": {
			func(t *testing.T, p string) { execSQL(t, p, "DELETE FROM meta") },
			cbsdmq.CodeUnavailable, "which pool", "integrity_check",
		},
		"index that lacks a job": {
			func(t *testing.T, p string) {
				execSQL(t, p, "PRAGMA writable_schema = ON", "UPDATE sqlite_schema SET sql = replace(sql, 'ident <> id', 'ident = id') WHERE name = 'job_ident'")
			},
			cbsdmq.CodeUnavailable, "missing from index job_ident", "integrity_check",
		},
		"log without its database": {
			func(t *testing.T, p string) { write(t, p, ""); write(t, p+"-wal", "log") },
			cbsdmq.CodeUnavailable, "its log is there", "move",
		},
		"log and no database": {
			func(t *testing.T, p string) { os.Remove(p); write(t, p+"-wal", "log") },
			cbsdmq.CodeUnavailable, "its log is there", "move",
		},
		"log and one byte": {
			func(t *testing.T, p string) { write(t, p, "S"); write(t, p+"-wal", "log") },
			cbsdmq.CodeUnavailable, "its log is there", "move",
		},
		"directory": {
			func(t *testing.T, p string) { os.Remove(p); os.Mkdir(p, 0o700) },
			cbsdmq.CodeBadConfig, "is a directory", `key "journal"`,
		},
		"pipe": { // to open it would wait for a writer
			func(t *testing.T, p string) { os.Remove(p); syscall.Mkfifo(p, 0o600) },
			cbsdmq.CodeBadConfig, "is not a file", `key "journal"`,
		},
		"dangling link": {
			func(t *testing.T, p string) { os.Remove(p); os.Symlink("nowhere", p) },
			cbsdmq.CodeUnavailable, "nowhere", "link",
		},
		"empty host id": {
			func(t *testing.T, p string) {
				write(t, filepath.Join(filepath.Dir(p), "..", "state", "hostid"), "\n")
			},
			cbsdmq.CodeUnavailable, "hostid is empty", "remove it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j := openTest(t, dir)
			accept(t, j, testAccept(testID(1)))
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			path := testOptions(dir).Path
			c.make(t, path)
			switch name { // what can be seen without a lock, is
			case "directory", "pipe", "dangling link":
				wantHint(t, Verify(t.Context(), path, ""), c.code, c.hint)
			}
			j, err := Open(t.Context(), testOptions(dir))
			if err == nil {
				js := openJobs(t, j)
				j.Close()
				t.Fatalf("it was opened, with %d jobs", len(js))
			}
			t.Log(err)
			wantHint(t, err, c.code, c.hint)
			if !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v\ndoes not say %q", err, c.text)
			}
			// The lock was let go.
			f, err := acquire(path+".lock", "host1")
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		})
	}
}

func TestOpenWithoutDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{
		{Path: filepath.Join(file, "journal.sqlite"), State: dir, Mode: "wal"},
		{Path: filepath.Join(dir, "journal.sqlite"), State: filepath.Join(file, "state"), Mode: "wal"},
	} {
		_, err := Open(t.Context(), o)
		wantHint(t, err, cbsdmq.CodeUnavailable, `the keys "journal" and "state_dir"`)
	}
}

// Another program's database that is named by mistake is not even touched.
func TestOtherDatabaseIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(dir)
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", o.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE jails (jname TEXT)"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	before, err := os.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), o); err == nil {
		t.Fatal("it was opened")
	}
	after, err := os.ReadFile(o.Path)
	if err != nil || string(before) != string(after) {
		t.Errorf("the file was changed, %v", err)
	}
}

func TestOddPaths(t *testing.T) {
	for _, name := range []string{"with space", "a%20b", "what?x=1", "#1", "a&b=c", "ü", "x:y", `back\slash`, "'quote'"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), name)
			j := openTest(t, dir)
			accept(t, j, testAccept(testID(1)))
			j = reopen(t, j, dir)
			defer j.Close()
			if js := openJobs(t, j); len(js) != 1 || j.Past() != nil {
				t.Errorf("open: %v, past %v", ids(js), j.Past())
			}
			if _, err := os.Stat(filepath.Join(dir, "pool", "journal.sqlite-wal")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRelativePath(t *testing.T) {
	t.Chdir(t.TempDir())
	o := testOptions(".")
	j, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	accept(t, j, testAccept(testID(1)))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("pool/journal.sqlite"); err != nil {
		t.Error(err)
	}
}

func TestUnknownMode(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Mode = "off"
	_, err := Open(t.Context(), o)
	wantHint(t, err, cbsdmq.CodeBadConfig, `"delete"`)
}

func TestReaderOfNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.sqlite")
	_, err := OpenReader(path)
	wantHint(t, err, cbsdmq.CodeNotFound, "agent")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenReader(path)
	wantHint(t, err, cbsdmq.CodeNotFound, "agent")
	if err := os.WriteFile(path, []byte(strings.Repeat("garbage", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenReader(path)
	wantHint(t, err, cbsdmq.CodeUnavailable, "integrity_check")
}

// A reader reads beside the agent, after it, and cannot write.
func TestReader(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	path := testOptions(dir).Path
	for _, agent := range []bool{true, false} {
		if agent {
			accept(t, j, testAccept(testID(1)))
		} else if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		db, err := OpenReader(path)
		if err != nil {
			t.Fatal(err)
		}
		js, err := NewReader(db, path).Newest(t.Context(), 10, "", "")
		if err != nil || len(js) != 1 {
			t.Errorf("agent there %v: %v, %v", agent, ids(js), err)
		}
		if _, err := db.ExecContext(t.Context(), "DELETE FROM job"); err == nil {
			t.Error("a reader has written")
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	j = openTest(t, dir)
	defer j.Close()
	if j.Past() != nil || len(openJobs(t, j)) != 1 {
		t.Errorf("reading changed the journal: %v", j.Past())
	}
}

// A transaction that another program holds open is waited for, then named.
func TestBusy(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	defer j.Close()
	if _, err := j.write.ExecContext(t.Context(), "PRAGMA busy_timeout = 50"); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", testOptions(dir).Path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	err = j.Commit(&Batch{Accept: []*Accept{testAccept(testID(1))}})
	wantHint(t, err, cbsdmq.CodeUnavailable, "fuser")
	if _, err := c.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	accept(t, j, testAccept(testID(1)))
}

func TestUnfitFilesystems(t *testing.T) {
	for name, unwanted := range map[string]bool{
		// As FreeBSD names them.
		"zfs": false, "ufs": false, "tmpfs": false, "nullfs": false,
		"nfs": true, "smbfs": true, "fusefs": true, "fusefs.sshfs": true, "p9fs": true,
		// As Linux numbers them, see statfs(2).
		linuxFilesystem(0xef53):     false, // ext4
		linuxFilesystem(0x2fc12fc1): false, // zfs
		linuxFilesystem(0x9123683e): false, // btrfs
		linuxFilesystem(0x58465342): false, // xfs
		linuxFilesystem(0x01021994): false, // tmpfs
		linuxFilesystem(0x794c7630): false, // overlayfs
		linuxFilesystem(0x6969):     true,  // NFS
		linuxFilesystem(0xff534d42): true,  // CIFS
		linuxFilesystem(0xfe534d42): true,  // SMB 2
		linuxFilesystem(0x517b):     true,  // SMB
		linuxFilesystem(0x65735546): true,  // FUSE
		linuxFilesystem(0x01021997): true,  // 9P
		linuxFilesystem(0x00c36400): true,  // Ceph
		linuxFilesystem(0x6b414653): true,  // AFS
	} {
		if got := unfit(name); got != unwanted {
			t.Errorf("%s: unfit %v, want %v", name, got, unwanted)
		}
	}
	if err := checkFilesystem(t.TempDir()); err != nil {
		t.Errorf("the directory of this test: %v", err)
	}
	if err := checkFilesystem(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing directory has a file system")
	}
}

func TestCanceledContext(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	j, err := Open(ctx, testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	cancel() // the context is for Open only
	accept(t, j, testAccept(testID(1)))
}

// A path that was mistyped is somebody else's file.
func TestOpenLeavesStrangersAlone(t *testing.T) {
	for name, content := range map[string]string{
		"text":           "root:*:0:0:Charlie &:/root:/bin/sh\n",
		"other database": "SQLite format 3\x00" + strings.Repeat("\x01", 200),
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t.TempDir())
			dir := filepath.Dir(o.Path)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(o.Path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), o)
			if e, ok := errors.AsType[*cbsdmq.Error](err); !ok || e.Code != cbsdmq.CodeBadConfig || !strings.Contains(e.Hint, `key "journal"`) {
				t.Errorf("got %v", err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("%v, %v are beside it", entries, err)
			}
			if b, err := os.ReadFile(o.Path); err != nil || string(b) != content {
				t.Errorf("it was changed: %q, %v", b, err)
			}
		})
	}
}
