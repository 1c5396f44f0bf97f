package cbsd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

// behave tells the simulator of p how commands are to behave.
func behave(t testing.TB, p *Pool, c cbsdsim.Config) {
	t.Helper()
	if err := c.Write(p.cfg.Workdir); err != nil {
		t.Fatal(err)
	}
}

// lies is a command that does nothing and ends with status 0.
func lies(command string) cbsdsim.Config {
	zero := 0
	return cbsdsim.Config{ZFS: true, Commands: map[string]cbsdsim.Behaviour{command: {Exit: &zero}}}
}

func TestVerdictSnapshots(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	behave(t, p, cbsdsim.Config{ZFS: true})
	create(t, p, bhyve, "vm1")
	create(t, p, jail, "j1")
	create(t, p, qemu, "q1")
	steps(t, p, []step{
		{"bsnapshot mode=create jname=vm1 snapname=s1", cbsdmq.Changed, 0, "", ""},
		{"bsnapshot mode=create jname=vm1 snapname=s1", cbsdmq.Unchanged, 1, "dataset already exists", ""},
		{"bsnapshot mode=create jname=vm1 snapname=s2", cbsdmq.Changed, 0, "", ""},
		{"jsnapshot mode=create jname=j1 snapname=gettimeofday", cbsdmq.Changed, 0, "", ""},
		{"jsnapshot mode=create jname=vm1 snapname=s3", cbsdmq.Changed, 0, "", ""},
		{"jsnapshot mode=create jname=q1 snapname=s1", failed, 1, "q1 has no snapshot s1: zfs snapshot error", ""},
		{"jsnapshot mode=create jname=nosuch snapname=s1", failed, 1, "there is no guest nosuch", ""},
		{"bsnapshot mode=rollback jname=vm1 snapname=s9", failed, 1, "vm1 has no snapshot s9", "it has s1, s2, s3"},
		{"bsnapshot mode=rollback jname=vm1 snapname=s2", cbsdmq.Changed, 0, "", ""},
		{"bsnapshot mode=rollback jname=vm1 snapname=s3", failed, 1, "vm1 has no snapshot s3", "it has s1, s2"},
		{"bsnapshot mode=destroy jname=vm1 snapname=s9", cbsdmq.Unchanged, 0, "", ""}, // CBSD: destroyed 0, status 0
		{"bsnapshot mode=destroy jname=vm1 snapname=s2", cbsdmq.Changed, 0, "", ""},
		{"bsnapshot mode=list jname=vm1", "", 0, "", ""},
		{"bsnapshot mode=destroyall jname=vm1", cbsdmq.Changed, 0, "", ""},
		{"bsnapshot mode=destroyall jname=vm1", cbsdmq.Unchanged, 0, "", ""},
		{"bsnapshot mode=create jname=vm1 snapname=s1", cbsdmq.Changed, 0, "", ""},
		{"bsnapshot mode=create jname=vm1 snapname=s2", cbsdmq.Changed, 0, "", ""},
	})
	behave(t, p, lies("bsnapshot"))
	steps(t, p, []step{
		{"bsnapshot mode=create jname=vm1 snapname=s5", failed, 1, "vm1 has no snapshot s5", ""},
		{"bsnapshot mode=create jname=vm1 snapname=gettimeofday", failed, 1, "vm1 has no new snapshot", ""},
		{"bsnapshot mode=destroy jname=vm1 snapname=s1", failed, 1, "snapshot s1 of vm1 is still there", ""},
		{"bsnapshot mode=destroyall jname=vm1", failed, 1, "vm1 still has 2 snapshots", ""},
		{"bsnapshot mode=rollback jname=vm1 snapname=s1", failed, 1, "newer than s1", ""},
	})
}

func TestParseSnapshots(t *testing.T) {
	const out = "vm1\ts1\n-\t-\nvm2\tother\nvm1\ts2\nvm1\ts2\nvm1\t-\n"
	if got := strings.Join(parseSnapshots(out, "vm1"), " "); got != "s1 s2" {
		t.Errorf("got %q", got)
	}
}

// Without ZFS nothing is run that only ZFS can do.
func TestNeedsZFS(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	for line, field := range map[string]string{
		"bsnapshot mode=create jname=vm1 snapname=s1": "",
		"jsnapshot mode=list":                         "",
		"bhyve-dsk mode=modify jname=vm1 dsk_controller=virtio-blk dsk_path=dsk1 dsk_size=1g": "CommandArgs.dsk_size",
		"fetch_iso name=cloud-lab-tiny dstdir=default cloud=1 conv2zvol=1":                    "CommandArgs.conv2zvol",
	} {
		_, err := p.Plan(parseJob(strings.Fields(line)...))
		e, ok := errors.AsType[*cbsdmq.Error](err)
		if !ok || e.Code != cbsdmq.CodeRefused || e.Field != field || e.Err.Error() != "needs ZFS; "+p.cfg.Workdir+" is ufs" || e.Hint == "" {
			t.Errorf("%s: %v, hint %q", line, err, cbsdmq.HintOf(err))
		}
	}
	for _, line := range []string{
		"bhyve-dsk mode=modify jname=vm1 dsk_controller=virtio-blk dsk_path=dsk1 dsk_serial=4711",
		"fetch_iso name=cloud-lab-tiny dstdir=default cloud=1 conv2zvol=0",
	} {
		mustPlan(t, p, strings.Fields(line)...)
	}
	if err := os.WriteFile(p.path("nc.inventory"), []byte("fs=\"zfs\"\nzfsfeat=\"0\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := p.Plan(parseJob("jsnapshot", "mode=list"))
	if err == nil || !strings.Contains(err.Error(), "it is off in "+p.cfg.Workdir) {
		t.Errorf("zfsfeat off: %v", err)
	}
	behave(t, p, cbsdsim.Config{ZFS: true})
	if err := os.WriteFile(p.path("nc.inventory"), []byte("nodename=\"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustPlan(t, p, "jsnapshot", "mode=list") // it is not known: CBSD decides
}

func TestVerdictExport(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	create(t, p, jail, "j1")
	steps(t, p, []step{
		{"bexport jname=vm1", cbsdmq.Changed, 0, "", ""},
		{"bexport jname=vm1 imgname=copy", cbsdmq.Changed, 0, "", ""},
		{"jexport jname=j1", cbsdmq.Changed, 0, "", ""},
		{"jexport jname=nosuch", failed, 1, "there is no guest nosuch", ""},
		{"bstart jname=vm1", cbsdmq.Changed, 0, "", ""},
		{"bexport jname=vm1", failed, 1, "vm1.img is as it was: VM is online", "stop it first"},
		{"bexport jname=vm1 imgname=third", failed, 1, "there is no " + p.path("export", "third.img"), "stop it first"},
		{"bstop jname=vm1 noacpi=1", cbsdmq.Changed, 0, "", ""},
	})
	if !exists(p.path("export", "copy.img")) {
		t.Error("imgname has no effect")
	}
	behave(t, p, cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"bexport": {Half: true}}})
	steps(t, p, []step{{"bexport jname=vm1", failed, 1, "ends before its data does", "rm " + p.path("export", "vm1.img")}})
	behave(t, p, lies("bexport"))
	steps(t, p, []step{{"bexport jname=vm1 imgname=never", failed, 1, "was not exported", ""}})
}

// An image whose tar failed: on the real CBSD it has an end, and status 0.
func TestEmptyExport(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	plan := mustPlan(t, p, "bexport", "jname=vm1")
	before, err := p.Before(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	image := "___NCSTART_HEADER=1\nimg_flat_size=\"0\"\n___NCSTOP_HEADER=1\n___NCSTART_DATA=1\n\xfd7zXZ\n___NCSTOP_DATA=1\n"
	if err := os.WriteFile(p.path("export", "vm1.img"), []byte(image), 0o600); err != nil {
		t.Fatal(err)
	}
	v := p.After(t.Context(), plan, before, Exit{}, []byte("jexport done in 5 seconds\n"))
	if v.Outcome != failed || v.ErrCode != 1 || !strings.Contains(v.Reason, "0 bytes were packed") {
		t.Errorf("%+v", v)
	}
	// neither has one that has less in it than the disk takes
	if err := os.WriteFile(p.path("jails-data", "vm1-data", "dsk1.vhd"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	image = strings.Replace(image, `"0"`, `"4096"`, 1)
	if err := os.WriteFile(p.path("export", "vm1.img"), []byte(image), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := p.After(t.Context(), plan, before, Exit{}, nil); v.Outcome != failed || !strings.Contains(v.Reason, "4096 bytes were packed") {
		t.Errorf("%+v", v)
	}
}

func TestVerdictImport(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	must(t, p, "bexport", "jname=vm1", "dstdir="+p.path("import"))
	steps(t, p, []step{
		{"bimport jname=vm1", cbsdmq.Unchanged, 0, "", ""}, // it is there
		{"bremove jname=vm1", cbsdmq.Changed, 0, "", ""},
		{"bimport jname=vm1", cbsdmq.Changed, 0, "", ""},
		{"jimport jname=vm1 new_jname=vm2", cbsdmq.Changed, 0, "", ""},
		{"bimport jname=nosuch new_jname=vm3", failed, 1, "vm3 was not imported: No such jail or image here", ""},
	})
	behave(t, p, cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"bimport": {Half: true}}})
	steps(t, p, []step{{"bimport jname=vm1 new_jname=vm4", failed, 1, "vm4 was not imported", "rm -r " + p.path("jails-data", "vm4-data")}})
	behave(t, p, lies("bimport"))
	write(t, p.path("jails-system", "tmp.999999", "x"), 1) // of an import before
	steps(t, p, []step{{"bimport jname=vm1 new_jname=vm5", failed, 1, "vm5 was not imported", ""}})
	if v := do(t, p, "bimport", "jname=vm1", "new_jname=vm5"); v.Hint != "" {
		t.Errorf("what it has not left is to be removed: %s", v.Hint)
	}
	if ofLiveProcess(p.path("jails-data", "tmp.999999999")) || !ofLiveProcess(fmt.Sprintf("/x/tmp.%d", os.Getpid())) {
		t.Error("whose directory it is")
	}
	if lanes := mustPlan(t, p, "bimport", "jname=vm1").Lanes; len(lanes) != 1 || lanes[0] != "vm1" {
		t.Errorf("lanes %q", lanes)
	}
}

func TestVerdictFetch(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	const fetch = "fetch_iso dstdir=default cloud=1 name="
	steps(t, p, []step{
		{fetch + "cloud-lab-tiny", cbsdmq.Changed, 0, "", ""},
		{fetch + "cloud-lab-tiny", cbsdmq.Unchanged, 0, "", ""},
		{fetch + "cloud-lab-tony", failed, 1, "there is no profile cloud-lab-tony", "cloud-lab-tiny"},
		{"fetch_iso dstdir=default name=lab-tiny", cbsdmq.Unchanged, 0, "", ""},
	})
	if err := os.Remove(p.path("src", "iso", "cbsd-cloud-lab-tiny.raw")); err != nil {
		t.Fatal(err)
	}
	behave(t, p, cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"fetch_iso": {Half: true}}})
	steps(t, p, []step{{fetch + "cloud-lab-tiny", failed, 1, "cloud-lab-tiny was not fetched", "rm " + p.path("src", "iso", "lab-tiny.raw.xz")}})
	if err := os.Remove(p.path("src", "iso", "lab-tiny.raw.xz")); err != nil {
		t.Fatal(err)
	}
	behave(t, p, cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"fetch_iso": {Unreachable: true}}})
	steps(t, p, []step{{
		fetch + "cloud-lab-tiny", failed, 1, "cloud-lab-tiny was not fetched: nothing was downloaded: its mirrors cannot be reached from here, or do not have it",
		"iso_site in " + p.path("etc", "defaults", "vm-linux-cloud-lab-tiny.conf"),
	}})
	behave(t, p, cbsdsim.Config{ZFS: true})
	steps(t, p, []step{
		{fetch + "cloud-lab-tiny conv2zvol=1", cbsdmq.Changed, 0, "", ""},
		{fetch + "cloud-lab-tiny conv2zvol=1", cbsdmq.Unchanged, 0, "", ""},
	})
	behave(t, p, lies("fetch_iso"))
	steps(t, p, []step{{fetch + "cloud-Debian-x86-12 conv2zvol=1", failed, 1, "was not fetched", ""}})
}

func TestVerdictResize(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	behave(t, p, cbsdsim.Config{ZFS: true})
	create(t, p, bhyve, "vm1")
	const modify = "bhyve-dsk mode=modify jname=vm1 dsk_controller=virtio-blk dsk_path=dsk1 dsk_size="
	steps(t, p, []step{
		{modify + "20m", cbsdmq.Changed, 0, "", ""},
		{modify + "20m", cbsdmq.Unchanged, 0, "", ""},
		{modify + "+10m", cbsdmq.Changed, 0, "", ""},
		{modify + "+10485760", failed, 1, "dsk_size of vm1 is still", ""}, // CBSD adds nothing, status 0
		{modify + "5m", failed, 1, "", ""},
	})
	behave(t, p, lies("bhyve-dsk"))
	steps(t, p, []step{{modify + "+10m", failed, 1, "dsk_size of vm1 is still", ""}, {modify + "100m", failed, 1, "dsk_size of vm1 is still", ""}})
}

// nodes are two environments; the files of guests may be shared.
func nodes(t *testing.T, shared bool) (here, there *Pool) {
	here, there = simPool(t), simPool(t)
	if shared {
		for _, dir := range []string{"jails-data", "jails-system", "jails-rcconf"} {
			if err := os.RemoveAll(there.path(dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(here.path(dir), there.path(dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return here, there
}

func TestVerdictMigrate(t *testing.T) {
	t.Parallel()
	here, there := nodes(t, true)
	tell := func(c cbsdsim.Config) {
		c.Nodes = map[string]string{"node2": there.cfg.Workdir}
		behave(t, here, c)
	}
	tell(cbsdsim.Config{})
	addNode(t, here, "node2")
	create(t, here, bhyve, "vm1")
	create(t, here, bhyve, "vm2")
	create(t, here, bhyve, "vm3")
	steps(t, here, []step{
		{"bmigrate jname=vm1 node=node2", failed, 1, "runs neither here nor on node2: Not running", "start it here"},
		{"bstart vm1 vm2 vm3", cbsdmq.Changed, 0, "", ""},
		{"bmigrate jname=vm1 node=node9", failed, 1, "vm1 was not moved: bmigrate: no such node node9", "it runs here; node9 does not say"},
		{"bmigrate jname=nosuch node=node2", failed, 1, "there is no guest nosuch", ""},
		// status 0, but 14.1.3a cannot register it there
		{"bmigrate jname=vm1 node=node2", failed, 1, "vm1 runs on node2, but is registered here and not there", "cbsd junregister jname=vm1 here, then cbsd rexe node=node2"},
	})
	tell(cbsdsim.Config{Registers: true})
	steps(t, here, []step{{"bmigrate jname=vm2 node=node2", cbsdmq.Changed, 0, "", ""}})
	tell(cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"bmigrate": {Half: true}}})
	steps(t, here, []step{{"bmigrate jname=vm3 node=node2", failed, 1, "vm3 runs neither here nor on node2", "bstart jname=vm3"}})
	zero := 0
	tell(cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"bmigrate": {Exit: &zero}}})
	steps(t, here, []step{
		{"bstart jname=vm3", cbsdmq.Changed, 0, "", ""},
		{"bmigrate jname=vm3 node=node2", failed, 1, "vm3 still runs here", ""},
	})
}

func TestJudgeMigrate(t *testing.T) {
	plan := Plan{Command: "bmigrate", Argv: []string{"bmigrate", "jname=vm1", "node=n2"}, Verb: Migrate, Family: bhyve, Guest: "vm1"}
	off, on, none := GuestState{Exists: true, Emulator: bhyve}, GuestState{Exists: true, Emulator: bhyve, Running: true}, GuestState{}
	stray := GuestState{Running: true}
	for _, c := range []struct {
		here, there GuestState
		met         bool
		why, hint   string
	}{
		{none, on, true, "", ""},
		{on, on, false, "runs here and on n2", "stop one of them at once"},
		{on, none, false, "still runs here", ""},
		{off, on, false, "still registered here", "junregister"},
		{off, stray, false, "registered here and not there", "junregister"},
		{none, stray, false, "registered nowhere", "jregister"},
		{none, none, false, "neither here nor on n2", "register it here"},
		{off, off, false, "does not run on n2, nor here", ""},
	} {
		f := judgeMigrate(plan, Snapshot{Guests: map[string]GuestState{"vm1": on}},
			Snapshot{Guests: map[string]GuestState{"vm1": c.here}, Remote: map[string]GuestState{"vm1": c.there}}, 0)
		if f.met != c.met || !strings.Contains(f.why, c.why) || !strings.Contains(f.hint, c.hint) {
			t.Errorf("%+v, %+v: %+v", c.here, c.there, f)
		}
	}
}

// Where the other node does not answer, status 0 is not believed.
func TestJudgeMigrateUnread(t *testing.T) {
	plan := Plan{Command: "bmigrate", Argv: []string{"bmigrate", "jname=vm1", "node=n2"}, Verb: Migrate, Family: bhyve, Guest: "vm1"}
	on := GuestState{Exists: true, Emulator: bhyve, Running: true}
	before := Snapshot{Guests: map[string]GuestState{"vm1": on}}
	for _, here := range []GuestState{on, {}, {Exists: true, Emulator: bhyve}} {
		f := judgeMigrate(plan, before, Snapshot{Guests: map[string]GuestState{"vm1": here}, RemoteError: "no route"}, 0)
		if f.met || !strings.Contains(f.why, "is not known: no route") || !strings.Contains(f.hint, "Start it nowhere") {
			t.Errorf("%+v: %+v", here, f)
		}
	}
}

func TestVerdictColdMigrate(t *testing.T) {
	t.Parallel()
	here, there := nodes(t, false)
	tell := func(c cbsdsim.Config) {
		c.Nodes = map[string]string{"node2": there.cfg.Workdir}
		behave(t, here, c)
	}
	tell(cbsdsim.Config{})
	for _, name := range []string{"j1", "j2", "j3"} {
		create(t, here, jail, name)
	}
	steps(t, here, []step{
		{"jstart j1", cbsdmq.Changed, 0, "", ""},
		{"jcoldmigrate jname=j1 node=node2", cbsdmq.Changed, 0, "", ""},
		{"jcoldmigrate jname=j2 node=node2", cbsdmq.Changed, 0, "", ""},
		{"jcoldmigrate jname=j3 node=node9", failed, 1, "j3 was not moved: Preparing.", ""},
	})
	tell(cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"jcoldmigrate": {Half: true}}})
	steps(t, here, []step{
		{"jstart j3", cbsdmq.Changed, 0, "", ""},
		{"jcoldmigrate jname=j3 node=node2", failed, 1, "j3 was not moved: node2 does not have it", "jstart jname=j3"},
	})
	if s, err := there.state(t.Context(), "j1", Other, nil); err != nil || !s.Running {
		t.Errorf("j1 on the other node: %+v, %v", s, err)
	}
}

// addNode lets CBSD know another node.
func addNode(t *testing.T, p *Pool, name string) {
	t.Helper()
	execSQL(t, p.path("var", "db", "nodes.sqlite"), "INSERT INTO nodelist (nodename, ip) VALUES ('"+name+"', '127.0.0.2')")
}

func TestNothingFetched(t *testing.T) {
	const empty = "Invalid CRC: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
	for tail, want := range map[string]bool{
		"Size: 5 Mb\nProgress: 50%\n":                            false,
		"fetch x\nSize: 0 Mb\nChecking CRC sum: 12...":           true, // nothing to compare
		"Size: 0 Mb\nChecking CRC sum: \x1b[0;33m12..." + empty:  true,
		empty + "Invalid CRC: " + strings.Repeat("1", 64) + "\n": false, // one mirror gave something
		"\nSize: 0 Mb\nInvalid CRC: " + strings.Repeat("1", 64):  false, // a page that says that it is not there
		"": false,
	} {
		if got := nothingFetched([]byte(tail)); got != want {
			t.Errorf("%q: got %v", tail, got)
		}
	}
}

// What the real commands print last says nothing of what went wrong.
func TestSaidOfLongWork(t *testing.T) {
	for _, c := range []struct{ stdout, stderr, want string }{
		{"Warning: obtain_iso error for: x\n\nProcessed ISO size: 0\nBad ISO count: 1\nBad ISO list:  x\n", "", "Warning: obtain_iso error for: x"},
		{
			"Exporting (with compress level:6), please stand by: x\nenvironment flat size: 0, images size x.img: 10k\nexported image file: /x.img\njexport done in 3 seconds\n",
			"WIP: [0%/bin/tar: gnutar: Invalid archive format\nTry '/bin/tar --help' for more information.\n...100%]\n", "WIP: [0%/bin/tar: gnutar: Invalid archive format",
		},
	} {
		if got := said(Exit{Stderr: []byte(c.stderr)}, []byte(c.stdout)); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
