package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/cbsd/cbsdmq"
)

func TestServed(t *testing.T) {
	dir := t.TempDir()
	path := testOptions(dir).Path
	served := func(want bool) {
		t.Helper()
		h, is, err := Served(path)
		if err != nil || is != want || is && (h.PID != os.Getpid() || h.Host != "host1") {
			t.Errorf("served %v by %+v, %v, want %v", is, h, err, want)
		}
	}
	served(false)
	j := openTest(t, dir)
	served(true)
	accept(t, j, testAccept(testID(1)))
	j.Close()
	served(false)
}

// Looking at a lock takes it for a moment. That keeps no agent from starting.
func TestServedDoesNotKeepAgentsOut(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	for looks, out := range map[time.Duration]bool{50 * time.Millisecond: false, time.Second: true} {
		synctest.Test(t, func(t *testing.T) {
			looking, err := os.OpenFile(name, os.O_RDONLY|os.O_CREATE, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Flock(int(looking.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(looks, func() { looking.Close() })
			f, err := acquire(name, "host1")
			if _, locked := errors.AsType[*LockedError](err); locked != out || !locked && err != nil {
				t.Errorf("held for %v: %v", looks, err)
			}
			f.Close()
			time.Sleep(looks)
		})
	}
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	o := testOptions(dir)
	if err := Verify(t.Context(), o.Path, o.Mode); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before there is one: %v", err)
	}
	if _, err := os.Stat(filepath.Dir(o.Path)); err == nil {
		t.Error("looking for a journal made something")
	}
	j := openTest(t, dir)
	accept(t, j, testAccept(testID(1)))
	for _, served := range []bool{true, false} {
		if err := Verify(t.Context(), o.Path, o.Mode); err != nil {
			t.Errorf("served %v: %v", served, err)
		}
		if served {
			accept(t, j, testAccept(testID(2)))
			j.Close()
		}
	}
	b, err := os.ReadFile(o.Path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Path, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	wantHint(t, Verify(t.Context(), o.Path, o.Mode), cbsdmq.CodeUnavailable, "integrity_check")
}

func TestNewest(t *testing.T) {
	j := openTest(t, t.TempDir())
	defer j.Close()
	for i := range 6 {
		a := testAccept(testID(i))
		a.Begin = i%2 == 0
		accept(t, j, a)
	}
	for name, c := range map[string]struct {
		limit  int
		state  cbsdmq.State
		before string
		want   []int
	}{
		"all":          {10, "", "", []int{5, 4, 3, 2, 1, 0}},
		"page":         {2, "", "", []int{5, 4}},
		"next page":    {2, "", testID(4), []int{3, 2}},
		"last page":    {2, "", testID(1), []int{0}},
		"behind it":    {2, "", testID(0), nil},
		"after a lost": {2, "", testID(99), nil},
		"state":        {10, cbsdmq.Running, "", []int{4, 2, 0}},
		"state page":   {1, cbsdmq.Running, testID(3), []int{2}},
		"no such":      {10, cbsdmq.Done, "", nil},
	} {
		js, err := j.Reader().Newest(t.Context(), c.limit, c.state, c.before)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range js {
			got = append(got, r.ID)
		}
		var want []string
		for _, n := range c.want {
			want = append(want, testID(n))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}
