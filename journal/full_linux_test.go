package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

func smallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	testserver.SmallDisk(t, dir, size)
	return dir
}

// fillDisk returns the file that takes all the room of dir.
func fillDisk(t *testing.T, dir string) (name string) {
	t.Helper()
	name = filepath.Join(dir, "filler")
	testserver.FillDisk(t, name)
	return name
}

// onSmallDisk opens a journal with its pool on a small disk and its state
// elsewhere.
func onSmallDisk(t *testing.T) (Options, *Journal) {
	t.Helper()
	o := testOptions(t.TempDir())
	o.Path = filepath.Join(smallDisk(t, "12m"), "var", "journal.sqlite")
	o.Reserve = 2 << 20
	j, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return o, j
}

func wantReserve(t *testing.T, o Options, want bool) {
	t.Helper()
	fi, err := os.Stat(o.Path + ".reserve")
	if got := err == nil && fi.Size() == o.Reserve; got != want {
		t.Fatalf("reserve is set aside: %v, want %v (%v)", got, want, err)
	}
}

func TestFullDisk(t *testing.T) {
	o, j := onSmallDisk(t)
	defer func() { j.Close() }()
	disk := filepath.Dir(filepath.Dir(o.Path))
	wantReserve(t, o, true)
	var running []int64
	for i := range 20 {
		a := testAccept(testID(i))
		a.Begin = true
		running = append(running, accept(t, j, a).Seq)
	}
	filler := fillDisk(t, disk)

	// Nothing new is taken, and the reserve is not touched for it.
	before, failed := j.Meta(), 0
	for i := range 100 {
		a := testAccept(testID(100 + i))
		a.Begin, a.Job.Plan = true, bytes.Repeat([]byte("p"), 60_000)
		err := j.Commit(&Batch{Accept: []*Accept{a}, Cancel: []int64{running[0]}})
		if err == nil {
			before = j.Meta()
			continue // there was still some room in the files
		}
		if failed++; !Full(err) {
			t.Fatal(err)
		}
		wantHint(t, err, cbsdmq.CodeUnavailable, "make room")
	}
	if failed == 0 {
		t.Fatal("the disk was not full")
	}
	if j.Meta() != before {
		t.Errorf("failed commits changed the counters from %+v to %+v", before, j.Meta())
	}
	wantReserve(t, o, true)

	// The ends of what runs are written.
	out := string(bytes.Repeat([]byte("o"), 50_000))
	for _, seq := range running[:10] {
		commit(t, j, Batch{Finish: []*Finish{done(seq, out)}})
	}
	wantReserve(t, o, false)
	j.RestoreReserve()
	wantReserve(t, o, false)

	// The agent is restarted on the full disk, and the rest ends too.
	if err := j.Close(); err != nil {
		t.Logf("closing on a full disk: %v", err)
	}
	var err error
	if j, err = Open(t.Context(), o); err != nil {
		t.Fatalf("opening on a full disk: %v", err)
	}
	if j.Past() != nil {
		t.Error(j.Past())
	}
	for _, seq := range running[10:] {
		commit(t, j, Batch{Finish: []*Finish{done(seq, out)}})
	}
	for _, seq := range running {
		if r := get(t, j, seq); r.State != cbsdmq.Done || r.OutSize != int64(len(out)) {
			t.Errorf("job %d is %s", seq, r.State)
		}
	}
	err = j.SaveOutput(running[0], bytes.NewReader(make([]byte, 8<<20)))
	if !Full(err) {
		t.Errorf("saving output on a full disk: %v", err)
	}
	wantHint(t, err, cbsdmq.CodeUnavailable, "make room")
	if _, err := os.Stat(outputFile(o.Path, running[0])); err == nil {
		t.Error("half of the output was left on the full disk")
	}

	// There is room again.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	accept(t, j, testAccept(testID(1000)))
	j.RestoreReserve()
	wantReserve(t, o, true)
	if err := j.Reader().Check(t.Context()); err != nil {
		t.Error(err)
	}
}

// The reserve is not made of the last room that there is.
func TestReserveLeavesRoom(t *testing.T) {
	o := testOptions(t.TempDir())
	o.Path = filepath.Join(smallDisk(t, "12m"), "var", "journal.sqlite")
	o.Reserve = 8 << 20
	j, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	wantReserve(t, o, false)
	for i := range 100 {
		a := testAccept(testID(i))
		a.Job.Plan = make([]byte, 50_000)
		accept(t, j, a)
	}
}

func TestLockOnFullDisk(t *testing.T) {
	disk := smallDisk(t, "1m")
	fillDisk(t, disk)
	lock := filepath.Join(disk, "lock")
	f, err := acquire(lock, "host1")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = acquire(lock, "host2")
	if locked, ok := errors.AsType[*LockedError](err); !ok || locked.Holder != (Holder{}) {
		t.Errorf("got %v", err)
	}
}

func TestUrgentUsesReserve(t *testing.T) {
	o, j := onSmallDisk(t)
	defer j.Close()
	fillDisk(t, filepath.Dir(filepath.Dir(o.Path)))
	for i := range 30 {
		a := testAccept(testID(i))
		a.Job.Plan = bytes.Repeat([]byte("p"), 60_000)
		err := j.Commit(&Batch{Accept: []*Accept{a}, Urgent: true})
		if err != nil && i < 10 {
			t.Fatalf("an urgent job was not taken: %v", err)
		}
	}
	wantReserve(t, o, false)
}

// Dropping old results needs room before it makes some.
func TestPruneOnFullDisk(t *testing.T) {
	o, j := onSmallDisk(t)
	defer j.Close()
	for i := range 40 {
		seq := accept(t, j, testAccept(testID(i))).Seq
		commit(t, j, Batch{Finish: []*Finish{done(seq, string(bytes.Repeat([]byte("o"), 50_000)))}})
	}
	sendAll(t, j)
	fillDisk(t, filepath.Dir(filepath.Dir(o.Path)))
	if more, err := j.Prune(t.Context(), later(1), Limits{Results: 1}); err != nil || more {
		t.Fatalf("more %v, %v", more, err)
	}
	if j.kept != 0 {
		t.Errorf("%d bytes are kept", j.kept)
	}
}

// The state directory is on another disk than the pool. A full one does not
// keep a pool from being served, once this host has a name.
func TestFullStateDirectory(t *testing.T) {
	o := testOptions(t.TempDir())
	o.State = smallDisk(t, "1m")
	j, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	fillDisk(t, o.State)
	accept(t, j, testAccept(testID(1)))
	if err := j.SaveMark(); !Full(err) {
		t.Errorf("saving the mark on a full disk: %v", err)
	}
	j.release()
	if j, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	accept(t, j, testAccept(testID(2)))
	if j.Past() != nil {
		t.Error(j.Past())
	}
}

func TestReadOnly(t *testing.T) {
	remount := func(t *testing.T, dir string) {
		t.Helper()
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(t *testing.T, o Options, what string) {
		t.Helper()
		j, err := Open(t.Context(), o)
		if err == nil {
			j.Close()
			t.Fatal("it was opened")
		}
		t.Log(err)
		wantHint(t, err, cbsdmq.CodeUnavailable, "must be able to write "+what)
	}
	t.Run("new pool", func(t *testing.T) {
		o := testOptions(t.TempDir())
		disk := smallDisk(t, "8m")
		o.Path = filepath.Join(disk, "var", "journal.sqlite")
		remount(t, disk)
		refused(t, o, o.Path)
	})
	t.Run("pool", func(t *testing.T) {
		o, j := onSmallDisk(t)
		j.Close()
		remount(t, filepath.Dir(filepath.Dir(o.Path)))
		refused(t, o, o.Path)
	})
	t.Run("state", func(t *testing.T) {
		o := testOptions(t.TempDir())
		o.State = smallDisk(t, "1m")
		remount(t, o.State)
		refused(t, o, o.State)
	})
	t.Run("file", func(t *testing.T) {
		o, j := onSmallDisk(t)
		accept(t, j, testAccept(testID(1)))
		j.Close()
		if err := unix.Mount(o.Path, o.Path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(o.Path, unix.MNT_DETACH) })
		if err := unix.Mount("", o.Path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		refused(t, o, o.Path)
	})
}

// A journal of an older schema on a disk without room for the change stays what
// it is, and nothing is left of the copy.
func TestMigrateOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	o := formerJournal(t, dir, 60) // 1.2 MB of output
	_, before := rowsOf(t, o.Path)
	small := smallDisk(t, "4m")
	b, err := os.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	o.Path = filepath.Join(small, "var", "journal.sqlite")
	if err := os.Mkdir(filepath.Dir(o.Path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, room := range []int64{0, 400_000, 1_500_000} { // for nothing; for a part of the copy; for the copy
		filler := fillDisk(t, small)
		if err := os.Truncate(filler, fileSize(filler)-room); err != nil {
			t.Fatal(err)
		}
		j, err := Open(t.Context(), o)
		if err == nil {
			j.Close()
			t.Fatalf("with room for %d bytes it was migrated", room)
		}
		t.Log(err)
		wantHint(t, err, cbsdmq.CodeUnavailable, "make room")
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		left, _ := filepath.Glob(o.Path + ".v*")
		if len(left) > 0 {
			t.Errorf("with room for %d bytes it left %v", room, left)
		}
		if version, rows := rowsOf(t, o.Path); version != 1 || !slices.Equal(rows, before) {
			t.Errorf("with room for %d bytes it has version %d, %d rows of %d", room, version, len(rows), len(before))
		}
	}
	o.Path = filepath.Join(dir, "pool", "journal.sqlite") // there is room here
	j, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
}

// A journal that has filled its own disk goes on once results are dropped: its
// file does not get shorter, but has room.
func TestJournalFillsItsDisk(t *testing.T) {
	_, j := onSmallDisk(t)
	defer func() { j.Close() }()
	out := string(bytes.Repeat([]byte("o"), 50_000))
	for i := 0; !j.Low(); i++ {
		if i == 1000 {
			t.Fatal("the disk does not get full")
		}
		a := testAccept(testID(i))
		a.Begin = true
		if err := j.Commit(&Batch{Accept: []*Accept{a}}); err != nil && !Full(err) {
			t.Fatal(err)
		}
		if a.Job.Seq != 0 {
			// Where even the reserve is not enough it is tried again later.
			answered := SentReply{Seq: a.Job.Seq, Bus: a.Address.Bus, Tube: a.Address.Tube, State: Sent}
			if err := j.Commit(&Batch{Finish: []*Finish{done(a.Job.Seq, out)}, Sent: []SentReply{answered}}); err != nil && !Full(err) {
				t.Fatal(err)
			}
		}
	}
	if j.RestoreReserve(); !j.Low() {
		t.Fatal("there is no room, and it is not low")
	}
	for more := true; more; {
		var err error
		if more, err = j.Prune(t.Context(), time.Now().Add(time.Hour), Limits{Results: time.Minute, IDs: 24 * time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	if j.RestoreReserve(); j.Low() {
		t.Fatal("results were dropped, and it is still low")
	}
	accept(t, j, testAccept(testID(2000)))
}
