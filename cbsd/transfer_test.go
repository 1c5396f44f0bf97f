package cbsd

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

// move makes a VM with something on its disk in one environment, and the job
// that moves it to another, whose side is held.
func move(t *testing.T) (from, to *Pool, again func(ctx context.Context) (string, error)) {
	t.Helper()
	from, to = simPool(t), simPool(t)
	create(t, from, bhyve, "vm1")
	disk := from.path("jails-data", "vm1-data", "dsk1.vhd")
	if err := os.WriteFile(disk, bytes.Repeat([]byte("data"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(disk, disk+".link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("dsk1.vhd", filepath.Join(filepath.Dir(disk), "first")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(from.path("var", "db", "cbsdmq", "transfer"), 0o700); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockFile(from.transferFile("vm1", "held"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unlock)
	return from, to, func(ctx context.Context) (string, error) {
		var out bytes.Buffer
		err := Own(ctx, from.cfg.Workdir, from.cfg.CBSD, []string{MoveGuest, "jname=vm1", "to=" + to.cfg.Workdir}, &out)
		return out.String(), err
	}
}

// isIn checks that vm1 is whole in one environment and that nothing of it is in
// the other.
func isIn(t *testing.T, has, hasNot *Pool) {
	t.Helper()
	if s, err := has.state(t.Context(), "vm1", Clone, nil); err != nil || !s.Exists || len(s.Disks) != 1 || s.Data != has.path("jails-data", "vm1-data") {
		t.Errorf("it is not in %s: %+v, %v", has.cfg.Workdir, s, err)
	}
	text, err := os.ReadFile(has.path("jails-data", "vm1-data", "first"))
	if err != nil || len(text) != 1<<20 || !bytes.HasPrefix(text, []byte("datadata")) {
		t.Errorf("its disk: %d bytes, %v", len(text), err)
	}
	if s, err := hasNot.state(t.Context(), "vm1", Other, nil); err != nil || s.Exists || s.Unregistered {
		t.Errorf("it is in %s: %+v, %v", hasNot.cfg.Workdir, s, err)
	}
	for _, part := range []string{"jails-data/vm1-data", "jails-data/.cbsdmq-vm1", "jails-system/vm1", "jails-rcconf/rc.conf_vm1"} {
		if exists(hasNot.path(part)) {
			t.Errorf("%s is left", hasNot.path(part))
		}
	}
}

func TestTransfer(t *testing.T) {
	t.Parallel()
	from, to, run := move(t)
	out, err := run(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	isIn(t, to, from)
	if exists(from.transferFile("vm1", "json")) {
		t.Error("the file of the transfer is left")
	}
	if out, err := run(t.Context()); err != nil || !strings.Contains(out, "is in "+to.cfg.Workdir+" already") {
		t.Errorf("again: %v\n%s", err, out) // the end of the first one may have been lost
	}
	must(t, to, "bstart", "jname=vm1")
	must(t, to, "bremove", "jname=vm1")
}

// Whatever was done when the process was killed, the next one goes on.
func TestTransferGoesOn(t *testing.T) {
	t.Parallel()
	for done := range 6 {
		from, to, run := move(t)
		tr := newTransfer("vm1", from.cfg.Workdir, to.cfg.Workdir, from.cfg.CBSD, new(bytes.Buffer))
		rec, _, err := tr.record()
		err = errors.Join(err, tr.write(rec))
		steps := []func(context.Context) error{tr.unregister, tr.copy, tr.register, tr.prove, func(context.Context) error {
			rec.Proven = true
			return errors.Join(tr.write(rec), os.RemoveAll(from.path("jails-data", "vm1-data"))) // in the middle of it
		}}
		for _, step := range steps[:min(done, len(steps))] {
			err = errors.Join(err, step(t.Context()))
		}
		tr.close()
		if err != nil {
			t.Fatalf("after %d steps: %v", done, err)
		}
		out, err := run(t.Context())
		if err != nil {
			t.Fatalf("after %d steps: %v\n%s", done, err, out)
		}
		isIn(t, to, from)
	}
}

// The same with a process that is killed at any moment.
func TestTransferKilled(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, to, _ := move(t)
	killed := 0
	for tries := 0; ; tries++ {
		cmd := exec.Command(self, "own", from.cfg.Workdir, from.cfg.CBSD, MoveGuest, "jname=vm1", "to="+to.cfg.Workdir)
		cmd.Env = append(os.Environ(), noSleep)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// A process that is given more and more time gets far enough on any machine.
		after := time.Duration(10+rand.IntN(50)) * time.Millisecond << (tries / 16)
		kill := time.AfterFunc(after, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		kill.Stop()
		if err == nil {
			break
		}
		if cmd.ProcessState.ExitCode() >= 0 {
			t.Fatalf("%v after %d kills: %s", err, killed, &out)
		}
		killed++
		if tries > 12*16 { // minutes
			t.Fatal("it never ends")
		}
	}
	t.Logf("killed %d times", killed)
	isIn(t, to, from)
}

// What goes wrong before the guest is proven is undone.
func TestTransferUndone(t *testing.T) {
	t.Parallel()
	zero := 0
	for what, spoil := range map[string]func(from, to *Pool){
		"it is not registered there": func(_, to *Pool) {
			behave(t, to, cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"jregister": {Exit: &zero}}})
		},
		"it is not unregistered here": func(from, _ *Pool) {
			behave(t, from, cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"junregister": {Exit: &zero}}})
		},
		"its files cannot be written there": func(_, to *Pool) {
			if err := errors.Join(os.RemoveAll(to.path("jails-system")), os.WriteFile(to.path("jails-system"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		from, to, run := move(t)
		spoil(from, to)
		out, err := run(t.Context())
		if err == nil || !strings.Contains(out, "vm1 is in "+from.cfg.Workdir+" again, as before") {
			t.Errorf("%s: %v\n%s", what, err, out)
		}
		isIn(t, from, to)
		if exists(from.transferFile("vm1", "json")) {
			t.Errorf("%s: the file of the transfer is left", what)
		}
	}
}

func TestTransferRefuses(t *testing.T) {
	t.Parallel()
	from, to, run := move(t)
	refused := func(want string) {
		t.Helper()
		if out, err := run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v\n%s", want, err, out)
		}
		isIn(t, from, to)
	}
	must(t, from, "bstart", "jname=vm1")
	refused("vm1 runs")
	must(t, from, "bstop", "jname=vm1", "noacpi=1")
	write(t, to.path("jails-fstab", "vm1", "fstab"), 3) // this CBSD leaves behind
	write(t, to.path("jails-system", "vm1", "notes"), 3)
	if out, err := run(t.Context()); err == nil || !strings.Contains(err.Error(), "jails-system/vm1 is there already") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.RemoveAll(to.path("jails-system", "vm1")); err != nil {
		t.Fatal(err)
	}
	behave(t, to, cbsdsim.Config{ZFS: true})
	refused("is on ZFS")
	behave(t, to, cbsdsim.Config{})
	unlock, err := lockFile(from.transferFile("vm1", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	refused("another transfer of vm1 runs")
	unlock()
	create(t, to, bhyve, "vm1")
	if _, err := run(t.Context()); err == nil || !strings.Contains(err.Error(), "is a guest of both") {
		t.Errorf("%v", err)
	}
	// the judge reads both sides
	plan := mustPlan(t, from, MoveGuest, "jname=vm1", "to="+to.cfg.Workdir)
	if v := from.After(t.Context(), plan, Snapshot{Guests: map[string]GuestState{}}, Exit{}, nil); v.Outcome != failed || !strings.Contains(v.Reason, "vm1 is here and in "+to.cfg.Workdir) {
		t.Errorf("%+v", v)
	}
}

func TestHold(t *testing.T) {
	t.Parallel()
	from, to := simPool(t), simPool(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	held := make(chan error, 1)
	go func() { held <- to.hold(ctx, "vm1", from.cfg.Workdir, new(bytes.Buffer)) }()
	for ctx.Err() == nil {
		unlock, err := lockFile(from.transferFile("vm1", "held"))
		if err != nil && exists(from.transferFile("vm1", "held")) {
			break // it is held
		}
		if err == nil {
			unlock()
		}
		time.Sleep(time.Millisecond)
	}
	unlock, err := takeLock(ctx, from.transferFile("vm1", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := os.Chtimes(from.transferFile("vm1", "lock"), now, now); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-held:
		t.Fatalf("let go while the transfer ran: %v", err)
	case <-time.After(3 * transferPoll):
	}
	unlock()
	if err := <-held; err != nil {
		t.Error(err)
	}
	if err := to.hold(ctx, "vm1", filepath.Join(t.TempDir(), "x\x00"), new(bytes.Buffer)); err == nil {
		t.Error("held in a directory that cannot be")
	}
	_, err = to.Plan(parseJob(HoldGuest, "jname=vm1"))
	if cbsdmq.CodeOf(err) != cbsdmq.CodeRefused {
		t.Errorf("without from: %v", err)
	}
}

// What is there is compared with what is here before anything is removed.
func TestTransferProves(t *testing.T) {
	t.Parallel()
	from, to, run := move(t)
	tr := newTransfer("vm1", from.cfg.Workdir, to.cfg.Workdir, from.cfg.CBSD, new(bytes.Buffer))
	defer tr.close()
	rec, _, err := tr.record()
	if err := errors.Join(err, tr.write(rec), tr.unregister(t.Context()), tr.copy(t.Context()), tr.register(t.Context())); err != nil {
		t.Fatal(err)
	}
	disk := to.path("jails-data", "vm1-data", "dsk1.vhd")
	text, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	text[4711] ^= 1
	if err := os.WriteFile(disk, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "have other checksums") {
		t.Errorf("%v\n%s", err, out)
	}
	isIn(t, from, to)
}

// A job that is cancelled puts everything back, or has not touched it.
func TestTransferCancelled(t *testing.T) {
	t.Parallel()
	from, to, run := move(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out, err := run(ctx)
	if !errors.Is(err, context.Canceled) || strings.Contains(out, "unregistering") {
		t.Errorf("before it began: %v\n%s", err, out)
	}
	isIn(t, from, to)
	// in the middle of the copy
	tr := newTransfer("vm1", from.cfg.Workdir, to.cfg.Workdir, from.cfg.CBSD, new(bytes.Buffer))
	defer tr.close()
	rec, _, err := tr.record()
	if err := errors.Join(err, tr.write(rec), tr.unregister(t.Context()), tr.copy(t.Context())); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(tr.staging, "jails-data", "x"), 5)
	if out, err := run(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(out, "again, as before") {
		t.Errorf("in the middle: %v\n%s", err, out)
	}
	isIn(t, from, to)
}
