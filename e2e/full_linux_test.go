package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// TestJournalFull fills the disk of the journal while a command runs. Its end
// is written into the reserve; jobs that come then stay on the broker, and run
// when there is room.
func TestJournalFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1")
	testserver.SmallDisk(t, w.journalDir(), "16m")
	letGo := w.hold("bset")
	a := w.agent("")
	o := w.original()
	running := o.put(body("bset", "jname=vm1", "tags=running"))
	w.begun(1)
	ballast := filepath.Join(w.journalDir(), "ballast")
	testserver.FillDisk(t, ballast)
	letGo()
	if r := o.replies(running, 1)[0]; r.State != cbsdmq.Done {
		t.Errorf("the job that ran ended %s: %s", r.State, r.Reason)
	}
	// What the reserve has left is used up too.
	testserver.FillDisk(t, ballast+"2")
	var waiting []uint64
	for i := range 5 {
		waiting = append(waiting, o.put(body("bset", "jname=vm1", fmt.Sprintf("tags=n%d", i))))
	}
	testserver.Eventually(t, patience, func() error {
		if !strings.Contains(w.log(), "cannot write the journal") {
			return errors.New("the agent does not say that it cannot write the journal")
		}
		return nil
	})
	if n := strings.Count(w.log(), "cannot write the journal"); n != 1 {
		t.Errorf("it says so %d times", n)
	}
	for _, name := range []string{ballast, ballast + "2"} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	ends := make(map[string]cbsdmq.Reply)
	for _, id := range waiting {
		r := o.replies(id, 1)[0]
		ends[r.ID] = r
	}
	w.judge(ends, false)
	if a.gone() {
		t.Error("the agent is gone")
	}
}

// TestFullDiskAndRoomMakers has commands that make room run on a full disk: one
// that waits in the journal for its guest, and one that comes. What does not
// make room waits, until there is room for the reserve again.
func TestFullDiskAndRoomMakers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1")
	w.guest("vm2")
	testserver.SmallDisk(t, w.journalDir(), "16m")
	letGo := w.hold("bset")
	w.agent("")
	o := w.original()
	running := o.put(body("bset", "jname=vm1", "tags=running"))
	queued := o.put(body("bremove", "jname=vm1"))
	w.begun(1)
	ballast := filepath.Join(w.journalDir(), "ballast")
	testserver.FillDisk(t, ballast)
	letGo()
	ends := make(map[string]cbsdmq.Reply)
	collect := func(id uint64) {
		t.Helper()
		r := o.replies(id, 1)[0]
		ends[r.ID] = r
	}
	collect(running)
	collect(queued)
	removed := o.put(body("bremove", "jname=vm2"))
	collect(removed)
	waits := o.put(body("bls", "header=0", "display=jname"))
	behind := o.put(body("bremove", "jname=vm2"))
	testserver.Eventually(t, patience, func() error {
		if !strings.Contains(w.log(), "cannot write the journal") {
			return errors.New("the agent does not say that the disk is full")
		}
		return nil
	})
	if n := o.unread(waits) + o.unread(behind); n != 0 {
		t.Errorf("%d replies to jobs that were to wait", n)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	collect(waits)
	collect(behind)
	for id, r := range ends {
		if r.State != cbsdmq.Done {
			t.Errorf("%s ended %s: %s", id, r.State, r.Reason)
		}
	}
	if n := strings.Count(w.log(), "can be written again"); n != 1 {
		t.Errorf("it says %d times that the journal can be written again", n)
	}
	w.judge(ends, false)
}

// TestJournalReadOnly has the journal on a file system that cannot be written.
// The agent says so and takes nothing.
func TestJournalReadOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	testserver.SmallDisk(t, w.journalDir(), "16m")
	a := w.agent("")
	o := w.original()
	o.good()
	a.kill()
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("", w.journalDir(), "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	id := o.put(body("bls", "header=0"))
	a = w.agent("")
	status := a.ends(t)
	if said := a.stderr.String(); status != 1 || !strings.Contains(said, w.journalDir()) || !strings.Contains(said, "hint: ") || !strings.Contains(said, "read-only") {
		t.Errorf("the agent ends with %d and says %q", status, said)
	}
	remount(0)
	w.agent("")
	if r := o.replies(id, 1)[0]; r.State != cbsdmq.Done {
		t.Errorf("the job that waited ended %s: %s", r.State, r.Reason)
	}
}

// TestRunDirFull has commands print on a full disk. Few of them notice; the
// reply says that something may be missing.
func TestRunDirFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	dir := filepath.Join(w.dir, "small")
	testserver.SmallDisk(t, dir, "4m")
	w.configure(map[string]any{"run_dir": filepath.Join(dir, "run")})
	a := w.agent("")
	o := w.original()
	if r := o.run(body("bls")); r.State != cbsdmq.Done || len(r.Warnings) > 0 {
		t.Fatalf("with room: %+v", r)
	}
	ballast := filepath.Join(dir, "ballast")
	testserver.FillDisk(t, ballast)
	if r := o.run(body("bls")); r.State == cbsdmq.Done && !strings.Contains(strings.Join(r.Warnings, "\n"), "the disk of run_dir is full") {
		t.Errorf("without room: %+v", r)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if r := o.run(body("bls")); r.State != cbsdmq.Done || len(r.Warnings) > 0 || r.Message == "" {
		t.Errorf("with room again: %+v", r)
	}
	if a.gone() {
		t.Error("the agent is gone")
	}
}

// TestEmbeddedBrokerFull fills the disk of the embedded broker. It says so once,
// and takes jobs again when there is room, without anybody starting anything.
func TestEmbeddedBrokerFull(t *testing.T) {
	t.Parallel()
	broker := embeddedNATS(t)
	w := newWorld(t, broker)
	dir := filepath.Join(w.dir, "nats")
	testserver.SmallDisk(t, dir, "32m")
	broker["nats"].(map[string]any)["embedded_dir"] = dir
	w.configure(broker)
	w.guest("vm1")
	a := w.agent("")
	if end := w.cbsdmq("run", "--config", w.file, "bls"); end.status != 0 {
		t.Fatalf("run ends with %d: %s", end.status, end.stderr)
	}
	ballast := filepath.Join(dir, "ballast")
	testserver.FillDisk(t, ballast)
	end := w.cbsdmq("submit", "--config", w.file, "--timeout", "3s", "bset", "jname=vm1", "tags="+strings.Repeat("x", 50_000))
	if end.status == 0 {
		t.Error("a job was submitted that the broker cannot keep")
	}
	const says = "embedded broker cannot write"
	testserver.Eventually(t, patience, func() error {
		if !strings.Contains(w.log(), says) {
			return errors.New("nobody says that the broker's disk is full")
		}
		return nil
	})
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, patience, func() error {
		if end := w.cbsdmq("run", "--config", w.file, "--timeout", "20s", "bls"); end.status != 0 {
			return fmt.Errorf("run ends with %d: %s", end.status, end.stderr)
		}
		return nil
	})
	if n := strings.Count(w.log(), says); n != 1 || a.gone() {
		t.Errorf("it was said %d times, the agent is gone: %t", n, a.gone())
	}
}
