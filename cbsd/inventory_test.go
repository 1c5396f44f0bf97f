package cbsd

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestGuests(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	if got, err := p.Guests(t.Context()); err != nil || len(got) != 0 {
		t.Fatalf("empty pool: %v, %v", got, err)
	}
	create(t, p, bhyve, "vm1", "host_hostname=vm1.example.org", "runasap=1")
	create(t, p, qemu, "q1", "astart=0")
	must(t, p, "qset", "jname=q1", "vm_cpus=2", "vm_ram=128m")
	create(t, p, jail, "j1", "astart=0")
	create(t, p, bhyve, "vm2")
	create(t, p, bhyve, "vm3")
	must(t, p, "bswmode", "jname=vm2", "mode=slave")
	must(t, p, "bswmode", "jname=vm3", "mode=maintenance", "comment=new disks")
	create(t, p, bhyve, "vm4")
	must(t, p, "junregister", "jname=vm4")

	got, err := p.Guests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vm := cbsdmq.Guest{Emulator: bhyve, Status: "Off", IP4: "DHCP", CPUs: 1, RAM: 64 << 20, OSType: "linux", AStart: true}
	with := func(g cbsdmq.Guest, f func(*cbsdmq.Guest)) cbsdmq.Guest { f(&g); return g }
	want := []cbsdmq.Guest{
		{Name: "j1", Emulator: jail, Status: "Off", IP4: "10.0.0.5"},
		with(vm, func(g *cbsdmq.Guest) { g.Name, g.Emulator, g.CPUs, g.RAM, g.AStart = "q1", qemu, 2, 128<<20, false }),
		with(vm, func(g *cbsdmq.Guest) { g.Name, g.Status = "vm1", "On" }),
		with(vm, func(g *cbsdmq.Guest) { g.Name, g.Status = "vm2", "Slave" }),
		with(vm, func(g *cbsdmq.Guest) { g.Name, g.Status = "vm3", "Maintenance:new disks" }),
		{Name: "vm4", Emulator: bhyve, Status: "Unregister"},
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(cbsdmq.Guest{}, "PID", "VNC", "Hostname")); d != "" {
		t.Error(d)
	}
	on := got[2]
	if on.PID < 2 || !strings.HasPrefix(on.VNC, "127.0.0.1:59") {
		t.Errorf("running guest: %+v", on)
	}
	for _, g := range got {
		one, ok, err := p.Guest(t.Context(), g.Name)
		if err != nil || !ok {
			t.Fatalf("%s: %v, %v", g.Name, ok, err)
		}
		if d := cmp.Diff(g, one); d != "" {
			t.Errorf("%s alone: %s", g.Name, d)
		}
	}
	for _, name := range []string{"nosuch", "", "../../etc", "vm*"} {
		if g, ok, err := p.Guest(t.Context(), name); err != nil || ok {
			t.Errorf("%q: %+v, %v", name, g, err)
		}
	}
}

// A VM whose own database is gone is still listed, by what the pool's says.
func TestGuestWithoutDatabase(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	if err := os.Rename(p.guestDB("vm1"), p.guestDB("vm1")+".away"); err != nil {
		t.Fatal(err)
	}
	g, ok, err := p.Guest(t.Context(), "vm1")
	if err != nil || !ok || g.CPUs != 1 || g.OSType != "linux" || g.Status != "Off" {
		t.Errorf("got %+v, %v, %v", g, ok, err)
	}
}

func TestGuestsUnavailable(t *testing.T) {
	p := barePool(t)
	if _, err := p.Guests(t.Context()); cbsdmq.CodeOf(err) != cbsdmq.CodeUnavailable || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// What is read from the files is what the commands print.
func TestLookupsAreWhatCommandsPrint(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	if err := (cbsdsim.Config{ZFS: true}).Write(p.cfg.Workdir); err != nil {
		t.Fatal(err)
	}
	create(t, p, bhyve, "vm1")
	create(t, p, qemu, "q1")
	create(t, p, jail, "j1")
	for _, line := range [][]string{
		{"bstart", "jname=vm1"}, {"qstart", "jname=q1"}, {"jset", "jname=j1", "astart=0"}, {"bset", "jname=vm1", "astart=0"},
		{"bstart", "vm1"}, {"bset", "jname=nosuch", "astart=0"}, {"bls"},
	} {
		plan := mustPlan(t, p, line...)
		exit, out := execute(t, p, plan)
		now := p.After(t.Context(), plan, Snapshot{}, exit, out).Now
		guid, disk, vnc := p.Lookups(t.Context(), plan, parseJob(line...), now)
		print := func(otherwise string, argv ...string) string {
			exit, out := execute(t, p, Plan{Argv: argv})
			if exit.Code != 0 || len(out) == 0 {
				return otherwise
			}
			return string(out)
		}
		get := "bget"
		if plan.Family == qemu {
			get = "qget"
		}
		wantGUID, wantDisk, wantVNC := "0", "0", ""
		if name := plan.Guest; name != "" {
			wantGUID = print("0", get, "jname="+name, "mode=quiet", "vm_zfs_guid")
			wantDisk = print("0", "bhyve-dsk", "mode=get", "jname="+name, "dsk_path=dsk1", "dsk_zfs_guid")
			if plan.Verb == Start {
				// not vnc: CBSD 14.1 passes over that name and prints every setting
				bind := strings.TrimSuffix(print("", get, "jname="+name, "mode=quiet", plan.Family+"_vnc_tcp_bind"), "\n")
				wantVNC = bind + ":" + print("", get, "jname="+name, "mode=quiet", "vnc_port")
			}
		}
		if guid != wantGUID || disk != wantDisk || vnc != wantVNC {
			t.Errorf("%v: got %q, %q, %q, want %q, %q, %q", line, guid, disk, vnc, wantGUID, wantDisk, wantVNC)
		}
	}
}

// A stand-in for cbsd with a workdir that has nothing but nc.inventory.
func TestLookupsAskTheCommand(t *testing.T) {
	stand := filepath.Join(t.TempDir(), "cbsd")
	script := `#!/bin/sh
case "$*" in
"bget jname=jail1 mode=quiet vm_zfs_guid") echo 1234567890 ;;
"bhyve-dsk mode=get jname=jail1 dsk_path=dsk1 dsk_zfs_guid") echo 987654321 ;;
"bget jname=vm1 mode=quiet vnc"|"qget jname=vm1 mode=quiet vnc") echo 127.0.0.1:5900 ;;
"qget jname=vm1 mode=quiet vm_zfs_guid") echo a; echo b ;;
*) echo "$*" >&2; exit 1 ;;
esac
`
	program(t, stand, script)
	p := barePool(t, func(c *Config) { c.CBSD = stand })
	for _, tt := range []struct {
		job             cbsdmq.Job
		guid, disk, vnc string
	}{
		{parseJob("jcreate", "jname=jail1"), "1234567890\n", "987654321\n", ""},
		{parseJob("bstart", "jname=vm1"), "0", "0", "127.0.0.1:5900\n"},
		{parseJob("bstart", "jname=vm1", "emulator=qemu"), "0", "0", "127.0.0.1:5900\n"},
		{parseJob("bstop", "jname=vm1"), "0", "0", ""},
		{parseJob("jls"), "0", "0", ""},
	} {
		plan, err := p.Plan(tt.job)
		if err != nil {
			t.Fatal(err)
		}
		guid, disk, vnc := p.Lookups(t.Context(), plan, tt.job, Snapshot{})
		if guid != tt.guid || disk != tt.disk || vnc != tt.vnc {
			t.Errorf("%v: got %q, %q, %q", plan.Argv, guid, disk, vnc)
		}
	}
}

// exec runs statements on a database as CBSD would.
func execSQL(t testing.TB, file string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func TestStore(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	file := filepath.Join(dir, "a?b c.sqlite") // characters that mean something in a URL
	execSQL(t, strings.ReplaceAll(file, "?", "%3f"), "CREATE TABLE t (id INTEGER, name TEXT, flag BOOLEAN, at TIMESTAMP)", "INSERT INTO t VALUES (1, 'one', 1, 1795375948), (2, NULL, 'true', NULL)")
	s := newStore()
	defer s.close()
	q := &query{table: "t", rest: "WHERE id = ?", columns: []string{"name", "flag", "at", "later"}}
	for _, tt := range []struct {
		id   int
		want []string
	}{{1, []string{"one", "1", "1795375948", ""}}, {2, []string{"", "true", "", ""}}} {
		row, ok, err := s.first(ctx, file, q, tt.id)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if d := cmp.Diff(tt.want, row); d != "" {
			t.Error(d)
		}
	}
	if _, ok, err := s.first(ctx, file, q, 3); ok || err != nil {
		t.Errorf("no row: %v, %v", ok, err)
	}
	if _, _, err := s.first(ctx, file, &query{table: "nosuch", columns: []string{"a"}}); err == nil {
		t.Error("read a table that is not there")
	}
	if _, _, err := s.first(ctx, filepath.Join(dir, "nosuch"), q, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("reading left files: %v", entries)
	}
}

// A file that was replaced is opened anew, one that was changed is read as it is now.
func TestStoreFollowsFile(t *testing.T) {
	ctx := t.Context()
	file := filepath.Join(t.TempDir(), "x.sqlite")
	execSQL(t, file, "CREATE TABLE t (v TEXT)", "INSERT INTO t VALUES ('old')")
	s := newStore()
	defer s.close()
	q := &query{table: "t", columns: []string{"v"}}
	read := func(want string) {
		t.Helper()
		if row, ok, err := s.first(ctx, file, q); err != nil || !ok || row[0] != want {
			t.Fatalf("got %v, %v, want %s", row, err, want)
		}
	}
	read("old")
	execSQL(t, file, "UPDATE t SET v = 'changed'")
	read("changed")
	execSQL(t, file+".new", "CREATE TABLE t (v TEXT)", "INSERT INTO t VALUES ('replaced')")
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	read("replaced")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.first(ctx, file, q); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("removed: %v", err)
	}
	if len(s.open) != 0 {
		t.Errorf("%d files are still open", len(s.open))
	}
}

func TestStoreBounded(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	s := newStore()
	q := &query{table: "t", columns: []string{"v"}}
	var files []string
	for i := range openFiles + 10 {
		f := filepath.Join(dir, fmt.Sprint(i))
		if i == 0 {
			execSQL(t, f, "CREATE TABLE t (v TEXT)", "INSERT INTO t VALUES ('x')")
		} else {
			text, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		files = append(files, f)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range files {
				f := files[(i*(w+1))%len(files)]
				if row, ok, err := s.first(context.Background(), f, q); err != nil || !ok || row[0] != "x" {
					t.Errorf("%s: %v, %v", f, row, err)
				}
			}
		})
	}
	wg.Wait()
	if len(s.open) > openFiles {
		t.Errorf("%d files are open", len(s.open))
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if _, _, err := s.first(ctx, files[0], q); err == nil {
		t.Error("read from a closed store")
	}
}

// The path of a job whose guest does not exist, without the command itself.
func BenchmarkNoSuchGuest(b *testing.B) {
	p := simPool(b)
	job := parseJob("bstart", "jname=nosuch", "quiet=1")
	for b.Loop() {
		plan, err := p.Plan(job)
		if err != nil {
			b.Fatal(err)
		}
		before, err := p.Before(b.Context(), plan)
		if err != nil {
			b.Fatal(err)
		}
		p.After(b.Context(), plan, before, Exit{}, nil)
		p.Lookups(b.Context(), plan, job, Snapshot{})
	}
}

func BenchmarkPlan(b *testing.B) {
	p := barePool(b)
	job := parseJob("bcreate", "jname=vm1", "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_cpus=1", "vm_ram=64m", "ci_user_pw_root=x")
	for b.Loop() {
		if _, err := p.Plan(job); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGuests(b *testing.B) {
	p := simPool(b)
	for i := range 20 {
		create(b, p, bhyve, fmt.Sprintf("vm%d", i))
	}
	for b.Loop() {
		if _, err := p.Guests(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// A cbsd that never answers holds nobody up, and is ended with its children.
func TestLookupsWithoutAnswer(t *testing.T) {
	dir := t.TempDir()
	stand := filepath.Join(dir, "cbsd")
	children := filepath.Join(dir, "children")
	program(t, stand, "#!/bin/sh\nsleep 300 &\necho $! >> "+children+"\nwait\n")
	p := barePool(t, func(c *Config) { c.CBSD = stand })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var guid, disk, vnc string
	ended := make(chan struct{})
	plan := mustPlan(t, p, "bstart", "jname=vm1")
	go func() {
		defer close(ended)
		guid, disk, vnc = p.Lookups(ctx, plan, parseJob("bstart", "jname=vm1"), Snapshot{})
	}()
	var text []byte
	eventually(t, "it has a child", func() bool {
		text, _ = os.ReadFile(children)
		return strings.HasSuffix(string(text), "\n")
	})
	cancel()
	<-ended
	if guid != "0" || disk != "0" || vnc != "" {
		t.Errorf("got %q, %q, %q", guid, disk, vnc)
	}
	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the child has ended", func() bool { _, ok := live(pid); return !ok })
	}
}
