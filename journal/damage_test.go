package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

// image is a journal as a killed agent leaves it: a database with most of the
// jobs and a log with the latest commits.
type image struct {
	db, wal []byte
	mark    mark
	host    string
	pool    string
	jobs    int
}

var testImage = sync.OnceValues(func() (image, error) {
	dir, err := os.MkdirTemp(memory(), "journal-image")
	if err != nil {
		return image{}, err
	}
	defer os.RemoveAll(dir)
	return makeImage(dir)
})

func makeImage(dir string) (im image, err error) {
	var j *Journal
	for life := range 2 {
		if j != nil {
			if err := j.Close(); err != nil {
				return im, err
			}
		}
		if j, err = Open(context.Background(), testOptions(dir)); err != nil {
			return im, err
		}
		defer j.release()
		for i := range 12 {
			n := life*100 + i
			a := testAccept(testID(n))
			a.Begin = i%3 == 0
			a.Job.Sender, a.Job.Key, a.Job.Plan = "shop", fmt.Sprint("order", n), bytes.Repeat([]byte("p"), 300)
			if i%4 == 0 {
				a = legacyAccept(n, fmt.Sprint("b/t/", n))
			}
			if err := j.Commit(&Batch{Accept: []*Accept{a}}); err != nil {
				return im, err
			}
			im.jobs++
			var b Batch
			if i%2 == 0 {
				b.Finish = []*Finish{done(a.Job.Seq, string(bytes.Repeat([]byte("o"), i*500)))}
			} else {
				b.Tombstone = []string{testID(1000 + n)}
			}
			if err := j.Commit(&b); err != nil {
				return im, err
			}
		}
	}
	if err := j.SaveMark(); err != nil {
		return im, err
	}
	path := testOptions(dir).Path
	im.mark, im.host, im.pool = j.marked, j.meta.HostID, j.meta.Pool
	im.mark.At = time.Now()
	if im.db, err = os.ReadFile(path); err != nil {
		return im, err
	}
	im.wal, err = os.ReadFile(path + "-wal")
	return im, err
}

// put writes the image with other files under dir.
func (im image) put(t testing.TB, dir string, db, wal []byte) Options {
	t.Helper()
	o := testOptions(dir)
	im.mark.Path = o.Path
	b, err := json.Marshal(im.mark)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		o.Path:                           db,
		o.Path + "-wal":                  wal,
		filepath.Join(o.State, "hostid"): []byte(im.host),
		markPath(o.State, im.pool):       b,
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// openDamaged opens the image with other files. Either Open says what is wrong
// and what to do, or what it opened can be used and nothing is missing silently.
func openDamaged(t testing.TB, im image, db, wal []byte) (opened bool) {
	t.Helper()
	o := im.put(t, memoryDir(t), db, wal)
	j, err := Open(t.Context(), o)
	if err != nil {
		if cbsdmq.HintOf(err) == "" {
			t.Fatalf("no way out of %v", err)
		}
		return false
	}
	defer j.Close()
	r := j.Reader()
	if err := r.Check(t.Context()); err != nil {
		t.Fatalf("it was opened damaged: %v", err)
	}
	js, err := r.Newest(t.Context(), 1000, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(js) < im.jobs && j.Past() == nil {
		t.Fatalf("%d of %d jobs are there, and nobody noticed", len(js), im.jobs)
	}
	for _, row := range js {
		if again, err := r.Job(t.Context(), row.ID); err != nil || again == nil || again.Seq != row.Seq {
			t.Fatalf("job %s cannot be found by its id: %v", row.ID, err)
		}
		if f, err := r.Output(t.Context(), row.Seq); err != nil {
			t.Fatal(err)
		} else {
			f.Close()
		}
		if _, err := r.Addresses(t.Context(), row.Seq); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Owed(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := testAccept("01K9ZZZZZZZZZZZZZZZZZZZZZZ")
	a.Begin = true
	commit(t, j, Batch{Accept: []*Accept{a}})
	if a.Known == nil {
		commit(t, j, Batch{Finish: []*Finish{done(a.Job.Seq, "")}})
	}
	if _, err := j.Prune(t.Context(), later(1), Limits{Results: time.Hour, IDs: time.Hour, Size: 1}); err != nil {
		t.Fatal(err)
	}
	return true
}

func loadImage(t testing.TB) image {
	t.Helper()
	im, err := testImage()
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func TestUndamaged(t *testing.T) {
	im := loadImage(t)
	if len(im.wal) < 4096*10 || len(im.db) < 4096*10 {
		t.Fatalf("the image has %d + %d bytes: too little to damage", len(im.db), len(im.wal))
	}
	if !openDamaged(t, im, im.db, im.wal) {
		t.Error("the image itself is refused")
	}
}

func TestCutFiles(t *testing.T) {
	im := loadImage(t)
	lengths := func(b []byte) []int {
		n := []int{0, 1, 16, 31, 99, 100, 512, 4095, 4096, 4097, 8192, len(b) / 2, len(b) - 4096, len(b) - 1}
		for range 10 {
			n = append(n, rand.IntN(len(b)))
		}
		return n
	}
	for _, n := range lengths(im.db) {
		if openDamaged(t, im, im.db[:n], im.wal) {
			t.Logf("database cut to %d of %d bytes: opened, the log had the rest", n, len(im.db))
		}
	}
	recovered := 0
	for _, n := range lengths(im.wal) {
		if openDamaged(t, im, im.db, im.wal[:n]) {
			recovered++
		}
	}
	if recovered == 0 {
		t.Error("a log without its end was never recovered")
	}
}

func TestFlippedBits(t *testing.T) {
	im := loadImage(t)
	opened := map[string]int{}
	const rounds = 60
	for range rounds {
		db, wal := bytes.Clone(im.db), bytes.Clone(im.wal)
		db[rand.IntN(len(db))] ^= 1 << rand.IntN(8)
		if openDamaged(t, im, db, im.wal) {
			opened["database"]++
		}
		wal[rand.IntN(len(wal))] ^= 1 << rand.IntN(8)
		if openDamaged(t, im, im.db, wal) {
			opened["log"]++
		}
	}
	t.Logf("of %d each, opened: %v", rounds, opened)
}

// FuzzOpen overwrites a part of the database or of its log, and cuts it.
func FuzzOpen(f *testing.F) {
	f.Add(false, uint32(0), []byte("SQLite format 4"), uint32(0))
	f.Add(false, uint32(16), []byte{0, 1}, uint32(0))
	f.Add(false, uint32(100), []byte{13, 0, 0, 255, 255}, uint32(0))
	f.Add(true, uint32(0), []byte{0x37, 0x7f, 0x06, 0x83}, uint32(0))
	f.Add(true, uint32(32), []byte{0, 0, 0, 1, 0, 0, 0, 0}, uint32(5000))
	f.Fuzz(func(t *testing.T, log bool, at uint32, b []byte, cut uint32) {
		im := loadImage(t)
		db, wal := bytes.Clone(im.db), bytes.Clone(im.wal)
		victim := &db
		if log {
			victim = &wal
		}
		copy((*victim)[int(at)%len(*victim):], b)
		*victim = (*victim)[:len(*victim)-int(cut)%len(*victim)]
		openDamaged(t, im, db, wal)
	})
}
