package journal

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

func openTest(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := Open(t.Context(), Options{
		Path: filepath.Join(dir, "pool", "journal.sqlite"), State: filepath.Join(dir, "state"), Host: "host1", Boot: "boot1",
	})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func testAccept(id string) *Accept {
	return &Accept{
		Job:     &Job{ID: id, Ident: id, Bus: "mem", Command: "jstart", Guest: "jail1", Plan: []byte(`{}`), Accepted: time.Now()},
		Address: Address{Bus: "mem", Tube: "reply1"},
	}
}

func TestAcceptBeginFinish(t *testing.T) {
	dir := t.TempDir()
	j := openTest(t, dir)
	a, b := testAccept("01K9ZQ6V4S8H2M0W3C5D7E9F1G"), testAccept("01K9ZQ6V4S8H2M0W3C5D7E9F1H")
	a.Begin = true
	if err := j.Commit(&Batch{Accept: []*Accept{a, b}}); err != nil {
		t.Fatal(err)
	}
	if a.Known != nil || a.Job.N != 1 || a.Job.State != cbsdmq.Running || b.Job.N != 0 {
		t.Fatalf("got %+v and %+v", a.Job, b.Job)
	}
	g := &Begin{Seq: b.Job.Seq}
	end := &Finish{Seq: a.Job.Seq, State: cbsdmq.Done, Result: []byte(`{"ErrCode":0}`), Output: []byte("hello"), OutSize: 5}
	if err := j.Commit(&Batch{Begin: []*Begin{g}, Finish: []*Finish{end}}); err != nil {
		t.Fatal(err)
	}
	if g.N != 2 {
		t.Errorf("second begin has n %d, want 2", g.N)
	}
	again := testAccept(a.Job.ID)
	again.Address.Tube = "reply2"
	if err := j.Commit(&Batch{Accept: []*Accept{again}}); err != nil {
		t.Fatal(err)
	}
	if again.Known == nil || again.Known.State != cbsdmq.Done || !again.NewAddress {
		t.Fatalf("a repeat was taken as %+v", again)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openTest(t, dir)
	defer j.Close()
	open, err := j.Reader().Open(t.Context())
	if err != nil || len(open) != 1 || open[0].ID != b.Job.ID || open[0].N != 2 {
		t.Fatalf("open jobs %+v, %v", open, err)
	}
	owed, err := j.Reader().Owed(t.Context())
	if err != nil || len(owed) != 2 {
		t.Fatalf("owed %+v, %v", owed, err)
	}
	if j.Past() != nil {
		t.Errorf("an untouched journal is from the past: %v", j.Past())
	}
}

func BenchmarkJob(b *testing.B) {
	j := openTest(b, b.TempDir())
	defer j.Close()
	b.ResetTimer()
	for i := range b.N {
		a := testAccept(fmt.Sprint(i))
		a.Begin = true
		if err := j.Commit(&Batch{Accept: []*Accept{a}}); err != nil {
			b.Fatal(err)
		}
		f := &Finish{Seq: a.Job.Seq, State: cbsdmq.Done, Result: []byte(`{}`)}
		if err := j.Commit(&Batch{Finish: []*Finish{f}}); err != nil {
			b.Fatal(err)
		}
	}
}
