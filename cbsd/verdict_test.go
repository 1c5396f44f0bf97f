package cbsd

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/google/go-cmp/cmp"
)

const failed = cbsdmq.OutcomeFailed

// create makes a guest of a family.
func create(t testing.TB, p *Pool, family, name string, more ...string) {
	t.Helper()
	line := []string{family[:1] + "create", "jname=" + name}
	if family == jail {
		line = append(line, "ver=empty", "ip4_addr=10.0.0.5")
	} else {
		line = append(line, "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_cpus=1", "vm_ram=64m")
	}
	must(t, p, append(line, more...)...)
}

// A step is one command and the verdict on it.
type step struct {
	line    string
	outcome cbsdmq.Outcome
	code    int
	reason  string // part of it
	hint    string // part of it
}

func steps(t *testing.T, p *Pool, list []step) {
	t.Helper()
	for _, s := range list {
		v := do(t, p, strings.Fields(s.line)...)
		if v.Outcome != s.outcome || v.ErrCode != s.code || !strings.Contains(v.Reason, s.reason) || !strings.Contains(v.Hint, s.hint) {
			t.Errorf("cbsd %s:\n got %q, code %d, reason %q, hint %q\nwant %q, code %d, reason %q, hint %q",
				s.line, v.Outcome, v.ErrCode, v.Reason, v.Hint, s.outcome, s.code, s.reason, s.hint)
		}
	}
}

func TestVerdictVM(t *testing.T) {
	for _, family := range []string{bhyve, qemu} {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			p := simPool(t)
			b := family[:1]
			vm := " vm_os_type=linux vm_os_profile=lab-tiny imgsize=10m vm_cpus=1 vm_ram=64m"
			steps(t, p, []step{
				{b + "create jname=vm1" + vm, cbsdmq.Changed, 0, "", ""},
				{b + "create jname=vm1" + vm, cbsdmq.Unchanged, 1, "already exist", ""},
				{b + "create jname=vm9 vm_os_type=linux vm_os_profile=nosuch imgsize=10m vm_cpus=1 vm_ram=64m", failed, 1, "vm9 was not created", ""},
				{b + "stop jname=vm1", cbsdmq.Unchanged, 0, "", ""},
				{b + "start jname=vm1", cbsdmq.Changed, 0, "", ""},
				{b + "start jname=vm1", cbsdmq.Unchanged, 1, "already running", ""},
				{b + "stop jname=vm1", cbsdmq.Changed, 0, "", ""},
				{b + "start jname=nosuch", failed, 1, "there is no guest nosuch", ""},
				{b + "set jname=vm1 vm_ram=128m", cbsdmq.Changed, 0, "", ""},
				{b + "set jname=vm1 vm_ram=128m", cbsdmq.Unchanged, 0, "", ""},
				{b + "set jname=vm1 vm_ram=256", cbsdmq.Changed, 0, "", ""},
				{b + "set jname=vm1 vm_ram=256", cbsdmq.Unchanged, 0, "", ""},
				{b + "set jname=vm1 vm_vnc_port=5999 astart=0", cbsdmq.Changed, 0, "", ""},
				{b + "set jname=vm1 vm_vnc_port=5999", cbsdmq.Unchanged, 0, "", ""},
				{b + "set jname=vm1 vm_vnc_port=0", cbsdmq.Changed, 0, "", ""},
				{b + "set jname=nosuch astart=0", failed, 1, "there is no guest nosuch", ""},
				{b + "set jname=vm1 protected=1", cbsdmq.Changed, 0, "", ""},
				{b + "remove jname=vm1", failed, 1, "vm1 is still there: Protected", "protected=0"},
				{b + "set jname=vm1 protected=0", cbsdmq.Changed, 0, "", ""},
				{"jswmode jname=vm1 mode=maintenance", cbsdmq.Changed, 0, "", ""},
				{"jswmode jname=vm1 mode=maintenance", cbsdmq.Unchanged, 0, "", ""},
				{b + "start jname=vm1", failed, 1, "vm1 does not run", "maintenance"},
				{"jswmode jname=vm1 mode=slave", cbsdmq.Changed, 0, "", ""},
				{b + "start jname=vm1", failed, 1, "vm1 does not run", "slave"},
				{"jswmode jname=vm1 mode=master", cbsdmq.Changed, 0, "", ""},
				{"junregister jname=vm1", cbsdmq.Changed, 0, "", ""},
				{"junregister jname=vm1", cbsdmq.Unchanged, 1, "", ""},
				{b + "start jname=vm1", failed, 1, "vm1 is unregistered", ""},
				{"jregister jname=vm1", cbsdmq.Changed, 0, "", ""},
				{"junregister jname=nosuch", failed, 1, "there is no guest nosuch", ""},
				{b + "start vm1", cbsdmq.Changed, 0, "", ""},
				{b + "remove vm1", cbsdmq.Changed, 0, "", ""},
				{b + "remove jname=vm1", cbsdmq.Unchanged, 0, "", ""},
				{b + "destroy jname=vm1", cbsdmq.Unchanged, 0, "", ""},
			})
		})
	}
}

func TestVerdictBhyve(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	steps(t, p, []step{
		{"bpause jname=vm1 mode=on", failed, 1, "vm1 does not run", ""},
		{"brestart jname=vm1", cbsdmq.Changed, 0, "", ""},
		{"bpause jname=vm1 mode=on", cbsdmq.Changed, 0, "", ""},
		{"bpause jname=vm1 mode=on", cbsdmq.Unchanged, 0, "", ""},
		{"bunregister jname=vm1", failed, 127, "vm1 is still registered", "use junregister"},
		{"bpause jname=vm1 mode=off", cbsdmq.Changed, 0, "", ""},
		{"bpause jname=vm1", cbsdmq.Changed, 0, "", ""},
		{"bpause jname=vm1", cbsdmq.Changed, 0, "", ""},
		{"brestart jname=vm1", cbsdmq.Changed, 0, "", ""},
		{"bclone old=vm1 new=vm2", failed, 1, "there is no guest vm2", "vm1 runs"},
		{"junregister jname=vm1", failed, 1, "vm1 is still registered", "stop it first"},
		{"bstop jname=vm1 noacpi=1", cbsdmq.Changed, 0, "", ""},
		{"bhyve-dsk mode=attach jname=vm1 dsk_controller=virtio-blk dsk_size=20m", cbsdmq.Changed, 0, "", ""},
		{"bhyve-dsk mode=attach jname=vm1 dsk_controller=virtio-blk dsk_size=20m dsk_path=dsk5.vhd", cbsdmq.Changed, 0, "", ""},
		{"bhyve-dsk mode=detach jname=vm1 dsk_controller=virtio-blk dsk_path=dsk2.vhd", cbsdmq.Changed, 0, "", ""},
		{"bhyve-dsk mode=detach jname=vm1 dsk_controller=virtio-blk dsk_path=dsk2", cbsdmq.Unchanged, 1, "", ""},
		{"bhyve-dsk mode=list jname=vm1", "", 0, "", ""},
		{"bclone old=vm1 new=vm2", cbsdmq.Changed, 0, "", ""},
		{"bclone old=vm1 new=vm2", cbsdmq.Unchanged, 1, "already exist", ""},
		{"bclone old=nosuch new=vm3", failed, 1, "there is no guest nosuch", ""},
		{"brename old=vm2 new=vm3", cbsdmq.Changed, 0, "", ""},
		{"brename old=vm2 new=vm4", failed, 1, "vm2 was not renamed", "no guest vm2"},
		{"bexport jname=vm1", cbsdmq.Changed, 0, "", ""},
		{"bimport jname=" + p.path("export", "vm1.img") + " new_jname=vm5", cbsdmq.Changed, 0, "", ""},
		{"jimport jname=" + p.path("export", "vm1.img") + " new_jname=vm5", cbsdmq.Unchanged, 0, "", ""},
		{"bregister jname=vm1", cbsdmq.Unchanged, 127, "not found", "use jregister"},
		{"bls header=0", "", 0, "", ""},
		{"bget jname=vm1 vm_ram", "", 0, "", ""},
		{"bget jname=nosuch vm_ram", "", 1, "", ""},
		{"bstart vm1 vm3 vm5", cbsdmq.Changed, 0, "", ""},
		{"bstop vm1 vm3 vm5", cbsdmq.Changed, 0, "", ""},
	})
}

func TestVerdictJail(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	steps(t, p, []step{
		{"jcreate jname=j1 ver=empty ip4_addr=10.0.0.5", cbsdmq.Changed, 0, "", ""},
		{"jcreate jname=j1 ver=empty ip4_addr=10.0.0.5", cbsdmq.Unchanged, 1, "", ""},
		{"jstart jname=j1", cbsdmq.Changed, 0, "", ""},
		{"jstart jname=j1", cbsdmq.Unchanged, 1, "", ""},
		{"jrestart jname=j1", cbsdmq.Changed, 0, "", ""},
		{"jstop jname=j1", cbsdmq.Changed, 0, "", ""},
		{"jstop jname=j1", cbsdmq.Unchanged, 1, "Not Running", ""},
		{"jset jname=j1 astart=0", cbsdmq.Changed, 0, "", ""},
		{"jset jname=j1 astart=0", cbsdmq.Unchanged, 0, "", ""},
		{"jclone old=j1 new=j2 host_hostname=j2.example.org", cbsdmq.Changed, 0, "", ""},
		{"jclone old=j1 new=j3", failed, 1, "there is no guest j3", ""},
		{"jrename old=j2 new=j3 host_hostname=j3.example.org", cbsdmq.Changed, 0, "", ""},
		{"jget jname=j1 astart", "", 0, "", ""},
		{"jremove jname=j3", cbsdmq.Changed, 0, "", ""},
		{"jremove jname=j3", cbsdmq.Unchanged, 0, "", ""},
	})
}

// A guest whose process ends at once: cbsd waits, prints PID: 0 and says 0.
func TestVerdictDied(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	for _, family := range []string{bhyve, qemu} {
		create(t, p, family, family[:1]+"1")
	}
	if err := (cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"*": {Die: true}}}).Write(p.cfg.Workdir); err != nil {
		t.Fatal(err)
	}
	steps(t, p, []step{
		{"bstart jname=b1", failed, 1, "b1 does not run", "ended at once"},
		{"qstart jname=q1", failed, 1, "q1 does not run", "ended at once"},
		{"bcreate jname=b2 vm_os_type=linux vm_os_profile=lab-tiny imgsize=10m vm_cpus=1 vm_ram=64m runasap=1", failed, 1, "b2 exists but does not run", ""},
	})
}

// Nothing listens at the address of a guest that was not started.
func TestLookupsOfTheDead(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	for _, family := range []string{bhyve, qemu} {
		name, start := family[:1]+"1", family[:1]+"start"
		create(t, p, family, name)
		vnc := func(line ...string) string {
			plan := mustPlan(t, p, line...)
			exit, out := execute(t, p, plan)
			_, _, vnc := p.Lookups(t.Context(), plan, parseJob(line...), p.After(t.Context(), plan, Snapshot{}, exit, out).Now)
			return vnc
		}
		if got := vnc(start, "jname="+name); got == "" {
			t.Errorf("%s: no address of a guest that runs", family)
		}
		must(t, p, family[:1]+"stop", "jname="+name, "noacpi=1")
		if err := (cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"*": {Die: true}}}).Write(p.cfg.Workdir); err != nil {
			t.Fatal(err)
		}
		if got := vnc(start, "jname="+name); got != "" {
			t.Errorf("%s: %q of a guest that does not run", family, got)
		}
		if err := (cbsdsim.Config{}).Write(p.cfg.Workdir); err != nil {
			t.Fatal(err)
		}
	}
}

// A command that lies about its end in either way.
func TestVerdictBelievesTheState(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	zero, one := 0, 1
	lies := cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{
		"bstart": {Exit: &zero, Stdout: "bstart done in 2 seconds\n"},                  // did nothing
		"bset":   {Exit: &one, Act: true, Stdout: "something went wrong afterwards\n"}, // did it
	}}
	if err := lies.Write(p.cfg.Workdir); err != nil {
		t.Fatal(err)
	}
	steps(t, p, []step{
		{"bstart jname=vm1", failed, 1, "vm1 does not run", ""},
		{"bset jname=vm1 vm_ram=512m", cbsdmq.Changed, 1, "", ""},
	})
}

// A secret that was set is seen to be set.
func TestVerdictSecret(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	steps(t, p, []step{
		{"bset jname=vm1 vnc_password=hunter2", cbsdmq.Changed, 0, "", ""},
		{"bset jname=vm1 vnc_password=hunter2", cbsdmq.Unchanged, 0, "", ""},
		{"bset jname=vm1 vnc_password=hunter3", cbsdmq.Changed, 0, "", ""},
	})
}

// A setting that the command passes over in silence.
func TestVerdictSettingIgnored(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	plan := mustPlan(t, p, "bset", "jname=vm1", "vm_ram=1g", "vnc_password=hunter2")
	before, err := p.Before(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	v := p.After(t.Context(), plan, before, Exit{}, nil)
	if v.Outcome != failed || v.ErrCode != 1 || v.Reason != `vm_ram of vm1 is still "67108864"` {
		t.Errorf("got %+v", v)
	}
	plan = mustPlan(t, p, "bset", "jname=vm1", "vnc_password=hunter2")
	if text, err := json.Marshal(before); err != nil || strings.Contains(string(text), "cbsd") {
		t.Errorf("the snapshot has the password: %s (%v)", text, err)
	}
	v = p.After(t.Context(), plan, before, Exit{}, nil)
	if v.Outcome != failed || v.Reason != "vnc_password of vm1 is not what was asked for" {
		t.Errorf("got %+v", v)
	}
}

func TestVerdictWildcard(t *testing.T) {
	t.Parallel()
	p := simPool(t, func(c *Config) { c.AllowWildcard = true })
	for _, name := range []string{"test1", "test2", "vm1"} {
		create(t, p, bhyve, name)
	}
	create(t, p, jail, "test3")
	steps(t, p, []step{
		{"bset jname=test1 protected=1", cbsdmq.Changed, 0, "", ""},
		{"bremove jname=test*", failed, 1, "test1 is still there", "protected"},
		{"bset jname=test1 protected=0", cbsdmq.Changed, 0, "", ""},
		{"bremove jname=test*", cbsdmq.Changed, 0, "", ""},
	})
	for name, want := range map[string]bool{"test1": false, "test2": false, "test3": true, "vm1": true} {
		if _, ok, err := p.Guest(t.Context(), name); err != nil || ok != want {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
}

// Where the copying of disks failed, the clone is there and cannot start.
func TestVerdictCloneWithoutDisk(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	plan := mustPlan(t, p, "bclone", "old=vm1", "new=vm2")
	before, err := p.Before(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	exit, out := execute(t, p, plan)
	if err := os.Remove(p.path("jails-data", "vm2-data", "dsk1.vhd")); err != nil {
		t.Fatal(err)
	}
	v := p.After(t.Context(), plan, before, exit, out)
	if v.Outcome != failed || v.ErrCode != 1 || !strings.HasPrefix(v.Reason, "vm2 has no disk dsk1.vhd") || !strings.Contains(v.Hint, "rsync") {
		t.Errorf("got %+v", v)
	}
}

// An image that no mirror gives, and the guest that needs it.
func TestVerdictStartWithoutImage(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, qemu, "vm1")
	if err := os.Remove(p.path("src", "iso", "cbsd-iso-lab-tiny.iso")); err != nil {
		t.Fatal(err)
	}
	behave(t, p, cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"qstart": {Unreachable: true}}})
	steps(t, p, []step{{"qstart jname=vm1", failed, 1, "vm1 does not run: No such ISO image.", "cbsdmq warm"}})
}

// Without CBSD's files nothing is claimed.
func TestVerdictStateUnreadable(t *testing.T) {
	p := barePool(t)
	plan := mustPlan(t, p, "bstart", "jname=vm1")
	before, err := p.Before(t.Context(), plan)
	if err == nil {
		t.Error("read the state of nothing")
	}
	for _, code := range []int{0, 1} {
		v := p.After(t.Context(), plan, before, Exit{Code: code}, []byte("No such domain: vm1\n"))
		if v.Outcome != "" || v.ErrCode != code || !strings.Contains(v.Reason, "exit code was taken as it is") {
			t.Errorf("exit code %d: got %+v", code, v)
		}
	}
	if got := p.Unknown(t.Context(), plan); !strings.Contains(got, "state of vm1 cannot be read") {
		t.Errorf("Unknown: %q", got)
	}
	if got := p.Unknown(t.Context(), mustPlan(t, p, "naton")); got != "CBSD's state does not show what became of naton" {
		t.Errorf("Unknown: %q", got)
	}
}

// A broken database is an error, not an absent guest.
func TestVerdictDatabaseBroken(t *testing.T) {
	p := barePool(t)
	if err := os.MkdirAll(p.path("var", "db"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.localDB(), []byte(strings.Repeat("not a database ", 100)), 0o644); err != nil {
		t.Fatal(err)
	}
	plan := mustPlan(t, p, "bremove", "jname=vm1")
	if _, err := p.Before(t.Context(), plan); err == nil {
		t.Error("read garbage")
	}
	if v := p.After(t.Context(), plan, Snapshot{}, Exit{}, nil); v.Outcome != "" || v.ErrCode != 0 || v.Reason == "" {
		t.Errorf("got %+v", v)
	}
}

// The snapshot survives the agent as JSON; without one, success is not called a change.
func TestSnapshotStored(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1", "runasap=1")
	for _, line := range [][]string{{"bset", "jname=vm1", "vm_ram=1g"}, {"bhyve-dsk", "mode=detach", "jname=vm1", "dsk_path=dsk1"}, {"brestart", "vm1"}} {
		before, err := p.Before(t.Context(), mustPlan(t, p, line...))
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 500 {
			t.Errorf("%v: %d bytes: %s", line, len(text), text)
		}
		var again Snapshot
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(before, again); d != "" {
			t.Errorf("%v: %s", line, d)
		}
	}
	v := p.After(t.Context(), mustPlan(t, p, "bstart", "jname=vm1"), Snapshot{}, Exit{}, nil)
	if v.Outcome != "" || v.ErrCode != 0 || !strings.Contains(v.Reason, "not known") {
		t.Errorf("without a snapshot: %+v", v)
	}
	v = p.After(t.Context(), mustPlan(t, p, "bstop", "jname=vm1"), Snapshot{}, Exit{}, nil)
	if v.Outcome != failed {
		t.Errorf("failed without a snapshot: %+v", v)
	}
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1", "runasap=1")
	create(t, p, jail, "j1")
	for _, tt := range [][2]string{
		{"bstart jname=vm1", "now vm1 runs (pid "},
		{"bstart jname=nosuch", "now there is no guest nosuch"},
		{"jstop jname=j1", "now j1 exists and does not run"},
		{"bclone old=vm1 new=vm2", "; there is no guest vm2"},
	} {
		if got := p.Unknown(t.Context(), mustPlan(t, p, strings.Fields(tt[0])...)); !strings.Contains(got, tt[1]) {
			t.Errorf("%s: got %q, want %q", tt[0], got, tt[1])
		}
	}
	must(t, p, "bpause", "jname=vm1", "mode=on")
	if got := p.Unknown(t.Context(), mustPlan(t, p, "bstart", "vm1")); !strings.Contains(got, "vm1 is paused") {
		t.Errorf("got %q", got)
	}
	must(t, p, "junregister", "jname=j1")
	if got := p.Unknown(t.Context(), mustPlan(t, p, "jstart", "j1")); got != "now j1 is unregistered" {
		t.Errorf("got %q", got)
	}
}

// A stale pid file whose pid another process has now.
func TestQemuPIDReused(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, qemu, "q1")
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		other.Process.Kill()
		other.Wait()
	})
	file := p.path("jails-system", "q1", "qemu.pid")
	if err := os.WriteFile(file, []byte(strconv.Itoa(other.Process.Pid)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	g, ok, err := p.Guest(t.Context(), "q1")
	if err != nil || !ok || g.Status != "Off" || g.PID != 0 {
		t.Errorf("got %+v, %v, %v", g, ok, err)
	}
}

// A bhyve guest that rebooted has another pid than the database for some seconds.
func TestBhyveFoundByTitle(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	if err := os.WriteFile(filepath.Join(p.vmmDir(), "vm1"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := p.bhyveProcess("vm1", 0); ok {
		t.Error("runs without a process")
	}
	guest := exec.Command("sleep", "60")
	guest.Args[0] = "bhyve: vm1"
	guest.Env = []string{"workdir=" + p.cfg.Workdir}
	if err := guest.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		guest.Process.Kill()
		guest.Wait()
	})
	eventually(t, "the process has its title", func() bool {
		pid, _, ok := p.bhyveProcess("vm1", 0)
		return ok && pid == guest.Process.Pid
	})
}

// eventually waits for another process.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	const limit = time.Minute
	for end := time.Now().Add(limit); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestSaid(t *testing.T) {
	for _, tt := range []struct {
		code                 int
		stdout, stderr, want string
	}{
		{0, "", "", ""},
		{0, "\n \n", "\n", ""},
		{1, "No such domain: vm1\n", "something\n", "No such domain: vm1"},
		{0, "a\nb", "", "b"},
		{0, "a\r\nb\r\n", "", "b"},
		{0, "\x1b[1;31mred\x1b[0m alert\n", "", "red alert"},
		{0, "caf\xe9\n", "", "caf"},
		{0, "Protected/locked jail. Skip for remove: vm1\nbdestroy done in 0 seconds\n", "", "Protected/locked jail. Skip for remove: vm1"},
		{0, "PID: 0\nbhyve: no such disk\nPlease use for debug: bhyverun.sh\nbstart done in 11 seconds\n", "", "bhyve: no such disk"},
		{0, "bstart done in 2 seconds\n", "", ""},
		// what is wrong comes first, and then advice
		{1, "No such ISO image. Try to download it manually and put into /p/x.iso\nOr register (via cbsd media mode=register) it with vm_iso_path name: x\n", "", "No such ISO image. Try to download it manually and put into /p/x.iso"},
		// a start that says nothing on stdout but what it always says
		{0, "VNC pass: cbsd\n[debug]: /bin/qemu-system-x86_64 -name q1\nBoot device: \nWaiting for PID....\nPID: 0\n", "[: -ne: unexpected operator\nduplicate session: cbsd-q1\nsysctl: cannot stat /proc/sys/hw/vmm/maxcpu: No such file or directory\n", "duplicate session: cbsd-q1"},
		{2, "VNC is enabled. VNC bind/port: 127.0.0.1:5977\nResolution: 1024x768.\nVNC pass: cbsd\n", "qstart: arithmetic expression: variable conversion error\n", "qstart: arithmetic expression: variable conversion error"},
		{127, "something\n", "cbsd: nosuch: not found\n", "cbsd: nosuch: not found"},
		{127, "something\n", "", "something"},
		{1, "Cloning...ok\n", "[: -ne: unexpected operator\n", ""},
	} {
		if got := said(Exit{Code: tt.code, Stderr: []byte(tt.stderr)}, []byte(tt.stdout)); got != tt.want {
			t.Errorf("%d %q %q: got %q, want %q", tt.code, tt.stdout, tt.stderr, got, tt.want)
		}
	}
	if got := said(Exit{}, []byte(strings.Repeat("ж", 1000))); len(got) > reasonMax || !strings.HasSuffix(got, "ж...") {
		t.Errorf("got %d bytes: %q", len(got), got)
	}
}

func TestSameSetting(t *testing.T) {
	for _, tt := range []struct {
		name, asked, kept string
		want              bool
	}{
		{"vm_ram", "1g", "1073741824", true},
		{"vm_ram", "1G", "1073741824", true},
		{"vm_ram", "1024", "1073741824", true},
		{"vm_ram", "1073741824", "1073741824", true},
		{"vm_ram", "2g", "1073741824", false},
		{"vm_ram", "abc", "abc", true},
		{"vm_ram", "abc", "1073741824", false},
		{"tags", "two%words", "two words", true},
		{"tags", "two  words", "two words", true},
		{"tags", "", "0", true},
		{"tags", "0", "(null)", true},
		{"bootable", "yes", "true", true},
		{"bootable", "yes", "false", false},
		{"vm_vnc_port", "5999", "5999", true},
		{"vm_vnc_port", "5999", "0", false},
		{"vm_vnc_port", "1", "5999", false},
		{"arch", "native", "amd64", true},
		{"ip4_addr", "10.0.0.1", "10.0.0.1/24", true},
		{"ip4_addr", "DHCP", "10.0.0.7", true},
		{"ip4_addr", "10.0.0.1", "10.0.0.2", false},
	} {
		if got := sameSetting(tt.name, tt.asked, tt.kept); got != tt.want {
			t.Errorf("%s: %q asked, %q kept: got %v", tt.name, tt.asked, tt.kept, got)
		}
	}
}

// A command for guests of another kind.
func TestVerdictWrongFamily(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, qemu, "q1", "runasap=1")
	steps(t, p, []step{
		{"bstart jname=q1", failed, 1, "q1 is a guest of qemu", "use qstart"},
		{"bset jname=q1 vm_ram=1g", failed, 1, "q1 is a guest of qemu", "use qset"},
		{"jrestart jname=q1", failed, 1, "q1 is a guest of qemu", ""},
		{"bclone old=q1 new=q2", failed, 1, "q1 is a guest of qemu", ""},
		{"jrename old=q1 new=q2", failed, 1, "q1 is a guest of qemu", ""},
		{"bcreate jname=q1 vm_os_type=linux vm_os_profile=lab-tiny imgsize=10m vm_cpus=1 vm_ram=64m", failed, 1, "q1 is a guest of qemu", ""},
	})
}

// What is not for a guest is told before it begins. A wildcard stands for guests
// of the command's kind only.
func TestMisfit(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	p.cfg.AllowWildcard = true
	create(t, p, qemu, "q1")
	create(t, p, bhyve, "b1")
	for line, want := range map[string]string{
		"bremove jname=q1":                         "Command: q1 is a guest of qemu",
		"bstart jname=q1":                          "Command: q1 is a guest of qemu",
		"jset jname=b1 astart=0":                   "Command: b1 is a guest of bhyve",
		"jclone old=b1 new=j1 host_hostname=j1.my": "Command: b1 is a guest of bhyve",
		"brename old=q1 new=b2":                    "Command: q1 is a guest of qemu",
		"qremove jname=q1":                         "",
		"bclone old=b1 new=q1":                     "",
		"bremove jname=nosuch":                     "",
		"bstop jname=*":                            "",
		"jswmode jname=b1 mode=maintenance":        "",
		"junregister jname=b1":                     "",
	} {
		plan := mustPlan(t, p, strings.Fields(line)...)
		before, err := p.Before(t.Context(), plan)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		got := ""
		if err := Misfit(plan, before); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
