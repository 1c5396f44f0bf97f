package cbsd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

// stopped is what a command leaves that was told to end; meanwhile does what it
// did by then.
func stopped(t *testing.T, p *Pool, line string, exit Exit, meanwhile func()) Remains {
	t.Helper()
	plan := mustPlan(t, p, strings.Fields(line)...)
	before, err := p.Before(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	if meanwhile != nil {
		meanwhile()
	}
	exit.Stopped = true
	r := p.After(t.Context(), plan, before, exit, nil).Remains
	t.Logf("%s: %+v", line, r)
	return r
}

func write(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRemains(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	create(t, p, bhyve, "vm1")
	create(t, p, jail, "j1")
	const vm = " vm_os_type=linux vm_os_profile=lab-tiny imgsize=10m vm_cpus=1 vm_ram=64m"
	killed := Exit{Code: 137, Signal: 9}
	run := func(line string) func() {
		return func() { execute(t, p, mustPlan(t, p, strings.Fields(line)...)) }
	}
	half := func(line string) func() {
		return func() {
			command, _, _ := strings.Cut(line, " ")
			behave(t, p, cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{command: {Half: true}}})
			run(line)()
			behave(t, p, cbsdsim.Config{})
		}
	}
	image := p.path("export", "vm1.img")
	for _, c := range []struct {
		line      string
		exit      Exit
		meanwhile func()
		kind      Kind
		what      string
		hint      string
	}{
		{"bls", killed, nil, Clean, "it only reads", ""},
		{"bcheckpoint mode=create jname=vm1", killed, nil, Untold, "", ""},
		{"bcreate jname=vm2" + vm, killed, nil, Clean, "all is as it was", ""},
		{"bcreate jname=vm2" + vm, killed, func() { write(t, p.path("jails-data", "vm2-data", "dsk1.vhd"), 5) }, Left, "vm2-data", "rm -r " + p.path("jails-data", "vm2-data")},
		{"bcreate jname=vm2" + vm, killed, run("bcreate jname=vm2" + vm), Left, "a half-made guest vm2", "cbsd bremove jname=vm2"},
		{"bcreate jname=vm3" + vm, Exit{}, run("bcreate jname=vm3" + vm), TooLate, "", ""},
		{"bclone old=vm1 new=vm4", killed, run("bclone old=vm1 new=vm4"), Left, "a half-made guest vm4", "cbsd bremove jname=vm4"},
		{"bstart jname=vm1", killed, nil, Clean, "", ""},
		{"bstart jname=vm1", killed, run("bstart jname=vm1"), TooLate, "", ""},
		{"bstop jname=vm1", killed, func() { execSQL(t, p.localDB(), "UPDATE jails SET status = 3 WHERE jname = 'vm1'") }, Left, "in maintenance", "jswmode jname=vm1 mode=master"},
		{"bset jname=vm1 vm_ram=128m", killed, nil, Clean, "", ""},
		{"bset jname=vm1 vm_ram=128m", Exit{}, run("bset jname=vm1 vm_ram=128m"), TooLate, "", ""},
		{"bset jname=vm3 vnc_password=new", killed, nil, Clean, "", ""},
		{"bexport jname=vm3", killed, nil, Clean, "", ""},
		{"bexport jname=vm3", killed, half("bexport jname=vm3"), Left, "a part of an image", "rm " + p.path("export", "vm3.img")},
		{"bexport jname=vm3", Exit{}, run("bexport jname=vm3"), Left, "in place of the one that was there", "rm "},
		{"bimport jname=" + p.path("export", "vm3.img") + " new_jname=vm6", killed, half("bimport jname=" + p.path("export", "vm3.img") + " new_jname=vm6"), Left, "vm6-data", "rm -r "},
		{"fetch_iso dstdir=default cloud=1 name=cloud-lab-tiny", killed, half("fetch_iso dstdir=default cloud=1 name=cloud-lab-tiny"), Left, "a part of a download", "lab-tiny.raw.xz"},
		{"jremove jname=j1", killed, nil, Clean, "", ""},
		{"jremove jname=j1", killed, func() { os.RemoveAll(p.path("jails-data", "j1-data")) }, Left, "without its data", "jremove jname=j1"},
		{"jremove jname=j1", killed, func() { execSQL(t, p.localDB(), "DELETE FROM jails WHERE jname = 'j1'") }, Left, p.path("jails-system", "j1"), "rm -r "},
		{"brename old=vm3 new=vm7", killed, func() { execSQL(t, p.localDB(), "DELETE FROM jails WHERE jname = 'vm3'") }, Left, "vm3 was not renamed", ""},
	} {
		r := stopped(t, p, c.line, c.exit, c.meanwhile)
		if r.Kind != c.kind || !strings.Contains(r.What, c.what) || !strings.Contains(r.Hint, c.hint) {
			t.Errorf("%s: %+v, want %s %q %q", c.line, r, c.kind, c.what, c.hint)
		}
		os.RemoveAll(p.path("jails-data", "vm2-data"))
	}
	write(t, image, 10)
	if r := stopped(t, p, "bexport jname=vm1", killed, func() { os.Chtimes(image, time.Now(), time.Now().Add(time.Second)) }); r.Kind != Left {
		t.Errorf("an image that was written to: %+v", r)
	}
}
