package cbsd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

func TestTransferZFS(t *testing.T) {
	t.Parallel()
	m := moveZFS(t)
	// CBSD's own snapshots come along, with what they have.
	m.zfs("snapshot", "-r", m.source+"/vm1@nightly")
	m.zfs("set", "cbsdsnap:jname=vm1", m.source+"/vm1@nightly")
	m.zfs("set", "cbsdsnap:snapname=nightly", m.source+"/vm1@nightly")
	m.write(m.source+"/vm1/dsk1.vhd", append(m.disk, "and more"...))
	m.disk = append(m.disk, "and more"...)
	out, err := m.run(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.moved()
	if got := m.zfs("list", "-H", "-t", "snapshot", "-o", "name,cbsdsnap:jname,cbsdsnap:snapname", "-r", m.target+"/vm1"); got !=
		m.target+"/vm1@nightly\tvm1\tnightly\n"+m.target+"/vm1/dsk1.vhd@nightly\t-\t-" {
		t.Errorf("its snapshots: %s", got)
	}
	if got := m.zfs("get", "-H", "-o", "value", "-s", "local", "cbsdsnap:jname,cbsdsnap:snapname", m.target+"/vm1@nightly"); got != "vm1\nnightly" {
		t.Errorf("CBSD does not see its snapshot: %q", got)
	}
	if out, err := m.run(t.Context()); err != nil || !strings.Contains(out, "is in "+m.to.cfg.Workdir+" already") {
		t.Errorf("again: %v\n%s", err, out)
	}
}

// A jail's file system is mounted where its data are, and what else it has are
// directories of the environment.
func TestTransferZFSJail(t *testing.T) {
	t.Parallel()
	m := moveZFS(t)
	create(t, m.from, jail, "j1")
	data := m.from.path("jails-data", "j1-data")
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	m.zfs("create", "-o", "mountpoint="+data, m.source+"/j1")
	write(t, filepath.Join(data, "etc", "motd"), 5)
	unlock, err := lockFile(m.from.transferFile("j1", "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	var out bytes.Buffer
	if err := Own(t.Context(), m.from.cfg.Workdir, m.from.cfg.CBSD, []string{MoveGuest, "jname=j1", "to=" + m.to.cfg.Workdir}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	there := m.to.path("jails-data", "j1-data")
	if s, err := m.to.state(t.Context(), "j1", Other, nil); err != nil || !s.Exists || s.Data != there {
		t.Errorf("it is not there: %+v, %v", s, err)
	}
	if !exists(filepath.Join(there, "etc", "motd")) || lexists(data) || lexists(m.from.path("jails-system", "j1")) {
		t.Error("its files are not there, or here still")
	}
}

// Whatever was done when the process was killed, the next one goes on.
func TestTransferZFSGoesOn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it starts zfs some hundred times")
	}
	for _, done := range []int{1, 4, 6} {
		m := moveZFS(t)
		ctx := t.Context()
		tr := newTransfer("vm1", m.from.cfg.Workdir, m.to.cfg.Workdir, m.from.cfg.CBSD, new(bytes.Buffer))
		rec, _, err := tr.record()
		err = errors.Join(err, tr.write(rec), tr.locate(ctx))
		steps := []func(context.Context) error{tr.unregister, tr.send, tr.copy, tr.register, tr.prove, func(ctx context.Context) error {
			rec.Proven = true
			return errors.Join(tr.write(rec), destroy(ctx, m.source+"/vm1")) // in the middle of it
		}}
		for _, step := range steps[:min(done, len(steps))] {
			err = errors.Join(err, step(ctx))
		}
		tr.close()
		if err != nil {
			t.Fatalf("after %d steps: %v", done, err)
		}
		if out, err := m.run(ctx); err != nil {
			t.Fatalf("after %d steps: %v\n%s", done, err, out)
		}
		m.moved()
	}
}

// What an attempt has left that came to nothing before the guest was taken out of
// the tables is not taken for the guest: it may have run since.
func TestTransferZFSStale(t *testing.T) {
	t.Parallel()
	m := moveZFS(t)
	ctx := t.Context()
	tr := newTransfer("vm1", m.from.cfg.Workdir, m.to.cfg.Workdir, m.from.cfg.CBSD, new(bytes.Buffer))
	defer tr.close()
	rec, _, err := tr.record()
	if err := errors.Join(err, tr.write(rec), tr.locate(ctx), tr.send(ctx)); err != nil {
		t.Fatal(err)
	}
	m.disk = append(m.disk, "written since"...)
	m.write(m.source+"/vm1/dsk1.vhd", m.disk)
	if out, err := m.run(ctx); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.moved()
}

// A stream that was cut short because the process was killed is taken up where it
// was, and what CBSD knows its snapshots by is not lost with it.
func TestTransferZFSKilled(t *testing.T) {
	t.Parallel()
	m := moveZFS(t)
	m.zfs("snapshot", "-r", m.source+"/vm1@nightly")
	for _, name := range []string{"/vm1@nightly", "/vm1/dsk1.vhd@nightly"} {
		m.zfs("set", "cbsdsnap:jname=vm1", m.source+name)
	}
	ctx := t.Context()
	tr := newTransfer("vm1", m.from.cfg.Workdir, m.to.cfg.Workdir, m.from.cfg.CBSD, new(bytes.Buffer))
	defer tr.close()
	rec, _, err := tr.record()
	if err := errors.Join(err, tr.write(rec), tr.locate(ctx), tr.unregister(ctx)); err != nil {
		t.Fatal(err)
	}
	m.zfs("snapshot", "-r", m.source+"/vm1@"+moveSnapshot)
	list, err := datasets(ctx, m.source+"/vm1")
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	for i, d := range list {
		to := tr.counterpart(d.name)
		short := exec.CommandContext(ctx, "sh", "-c", `zfs send -p "$1" | head -c "$3" | zfs receive -s -u "$2"`, "sh", d.name+"@nightly", to, strconv.Itoa(700+10000*i))
		if out, err := short.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("Partially received snapshot is saved")) {
			t.Fatalf("%v: %s", err, out)
		}
		if i == 0 {
			if err := tr.sendOne(ctx, d.name, to, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := m.run(ctx)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Count(out, "sending "+m.source+"/vm1: 0%\n") != 0 || strings.Count(out, "sending "+m.source+"/vm1/dsk1.vhd: 0%\n") != 2 {
		t.Errorf("what was there was sent again, or what was not there was not:\n%s", out)
	}
	m.moved()
	if got := m.zfs("list", "-H", "-t", "snapshot", "-o", "cbsdsnap:jname", "-r", m.target+"/vm1"); got != "vm1\nvm1" {
		t.Errorf("the owners of its snapshots: %q", got)
	}
}

// The program itself, killed while a stream is on its way.
func TestTransferZFSKilledProcess(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it starts zfs some hundred times")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := moveZFS(t)
	killed := 0
	for tries := 0; ; tries++ {
		cmd := exec.Command(self, "own", m.from.cfg.Workdir, m.from.cfg.CBSD, MoveGuest, "jname=vm1", "to="+m.to.cfg.Workdir)
		cmd.Env = append(os.Environ(), noSleep)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(100+100*tries)*time.Millisecond, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		kill.Stop()
		if err == nil {
			break
		}
		if cmd.ProcessState.ExitCode() >= 0 && !strings.Contains(out.String(), "another transfer of vm1 runs") {
			t.Fatalf("%v after %d kills: %s", err, killed, &out)
		}
		if killed++; tries > 100 {
			t.Fatal("it never ends")
		}
	}
	t.Logf("killed %d times", killed)
	m.moved()
}

// What goes wrong before the guest is proven is undone.
func TestTransferZFSUndone(t *testing.T) {
	t.Parallel()
	zero := 0
	for what, spoil := range map[string]func(m *zfsMove){
		"it is not registered there": func(m *zfsMove) {
			behave(t, m.to, cbsdsim.Config{ZFS: true, Commands: map[string]cbsdsim.Behaviour{"jregister": {Exit: &zero}}})
		},
		"its files cannot be written there": func(m *zfsMove) {
			write(t, m.from.path("jails-fstab", "vm1", "fstab"), 3)
			if err := errors.Join(os.RemoveAll(m.to.path("jails-fstab")), os.WriteFile(m.to.path("jails-fstab"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		m := moveZFS(t)
		spoil(m)
		out, err := m.run(t.Context())
		if err == nil || !strings.Contains(out, "vm1 is in "+m.from.cfg.Workdir+" again, as before") {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
		m.back()
	}
}

// What was received is compared with what was sent before anything is removed.
func TestTransferZFSProves(t *testing.T) {
	t.Parallel()
	m := moveZFS(t)
	ctx := t.Context()
	tr := newTransfer("vm1", m.from.cfg.Workdir, m.to.cfg.Workdir, m.from.cfg.CBSD, new(bytes.Buffer))
	defer tr.close()
	rec, _, err := tr.record()
	if err := errors.Join(err, tr.write(rec), tr.locate(ctx), tr.unregister(ctx), tr.copy(ctx), tr.register(ctx)); err != nil {
		t.Fatal(err)
	}
	volume := m.target + "/vm1/dsk1.vhd"
	m.zfs("destroy", volume+"@"+moveSnapshot)
	m.write(volume, []byte("something else"))
	m.zfs("snapshot", volume+"@"+moveSnapshot)
	out, err := m.run(ctx)
	if err == nil || !strings.Contains(err.Error(), volume+" is not what was sent of "+m.source+"/vm1/dsk1.vhd") {
		t.Errorf("%v\n%s", err, out)
	}
	m.back()
	// Nor is the source removed where what was proven is gone.
	if err := tr.unregister(ctx); err != nil {
		t.Fatal(err)
	}
	rec.Proven = true
	if err := tr.write(rec); err != nil {
		t.Fatal(err)
	}
	if _, err := m.run(ctx); err == nil || !strings.Contains(err.Error(), "not all of it is gone here") {
		t.Errorf("removed what is nowhere else: %v", err)
	}
	if has, err := hasDataset(ctx, m.source+"/vm1"); !has || err != nil {
		t.Errorf("the source is gone: %v", err)
	}
}

func TestTransferZFSRefuses(t *testing.T) {
	t.Parallel()
	m := moveZFS(t)
	refused := func(want string) {
		t.Helper()
		if out, err := m.run(t.Context()); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(out, "unregistering") {
			t.Errorf("want %q: %v\n%s", want, err, out)
		}
	}
	m.zfs("create", m.target+"/vm1")
	refused("the dataset " + m.target + "/vm1 is there already")
	m.zfs("destroy", m.target+"/vm1")
	write(t, m.to.path("vm", "vm1", "notes"), 3)
	refused("/vm/vm1 is there already")
	if err := os.RemoveAll(m.to.path("vm", "vm1")); err != nil {
		t.Fatal(err)
	}
	m.zfs("create", m.source+"/vm1/more")
	refused("vm1 has a dataset of its own below it, " + m.source + "/vm1/more")
	m.zfs("destroy", m.source+"/vm1/more")
	m.zfs("create", "-o", "encryption=aes-256-gcm", "-V", "1m", m.source+"/vm1/dsk2.vhd")
	refused(m.source + "/vm1/dsk2.vhd is encrypted")
	m.zfs("destroy", m.source+"/vm1/dsk2.vhd")
	m.zfs("snapshot", m.source+"/vm1/dsk1.vhd@a")
	m.zfs("clone", m.source+"/vm1/dsk1.vhd@a", m.source+"/dsk2.vhd")
	refused(m.source + "/dsk2.vhd is a clone of vm1")
	m.zfs("destroy", m.source+"/dsk2.vhd")
	m.zfs("destroy", m.source+"/vm1/dsk1.vhd@a")
	m.zfs("set", "available=1073741824", m.target)
	refused("too few would be left")
	m.zfs("set", "available=", m.target)
	behave(t, m.to, cbsdsim.Config{})
	refused(m.from.cfg.Workdir + " is on ZFS, and " + m.to.cfg.Workdir + " is not")
	m.back()
}

// A disk that is a clone of an image becomes a volume of its own, and the
// snapshot that CBSD has made for it goes with it.
func TestTransferZFSClone(t *testing.T) {
	t.Parallel()
	m := moveZFS(t)
	m.zfs("create", "-V", "1m", m.source+"/image.raw")
	m.write(m.source+"/image.raw", m.disk)
	origin := m.source + "/image.raw@cbsd-original-vm1-dsk1.vhd"
	m.zfs("snapshot", origin)
	m.zfs("destroy", m.source+"/vm1/dsk1.vhd")
	m.zfs("clone", origin, m.source+"/vm1/dsk1.vhd")
	if out, err := m.run(t.Context()); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.moved()
	if got := m.zfs("get", "-H", "-o", "value", "origin", m.target+"/vm1/dsk1.vhd"); got != "-" {
		t.Errorf("its disk is a clone of %s", got)
	}
	if has, err := hasDataset(t.Context(), origin); has || err != nil {
		t.Errorf("%s is left: %v", origin, err)
	}
}

// A job that is cancelled while it sends puts everything back.
func TestTransferZFSCancelled(t *testing.T) {
	t.Parallel()
	m := moveZFS(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	tr := newTransfer("vm1", m.from.cfg.Workdir, m.to.cfg.Workdir, m.from.cfg.CBSD, new(bytes.Buffer))
	defer tr.close()
	rec, _, err := tr.record()
	if err := errors.Join(err, tr.write(rec), tr.locate(ctx), tr.unregister(ctx), tr.send(ctx)); err != nil {
		t.Fatal(err)
	}
	// zfs send has nothing to read of it: the stream cannot come to its end
	if _, err := zfs(ctx, "destroy", "-r", m.target+"/vm1/dsk1.vhd"); err != nil {
		t.Fatal(err)
	}
	cancel()
	out, err := m.run(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = m.run(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	m.moved()
}
