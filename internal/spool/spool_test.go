package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
)

func id(n int) string { return fmt.Sprintf("01K9ZQ6V4S%016d", n) }

func TestSpool(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "a", "b", "spool"))
	if list, err := s.List(); list != nil || err != nil {
		t.Fatalf("a spool that is not there: %v, %v", list, err)
	}
	if unlock, err := s.Lock(t.Context()); err != nil {
		t.Fatal(err)
	} else {
		unlock()
	}
	if _, err := os.Stat(s.Dir()); err == nil {
		t.Fatal("looking made it")
	}
	e := Entry{
		ID: id(2), Pool: "pool1", Command: "bset", Args: []Arg{{"jname", "vm1"}, {"a", "ü\x01"}}, Words: []string{"w"},
		Key: "k", InOrder: true, Sender: "anna", Expires: time.Unix(1800000000, 0).UTC(), Kept: time.Unix(1700000000, 0).UTC(),
	}
	first := Entry{ID: id(1), Pool: "pool2", Command: "jls"}
	for _, e := range []Entry{e, first, e} {
		if err := s.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].ID != first.ID || fmt.Sprint(list[1]) != fmt.Sprint(e) {
		t.Errorf("%+v, %v", list, err)
	}
	if !e.Expired(e.Expires) || e.Expired(e.Expires.Add(-1)) || first.Expired(time.Now()) {
		t.Error("expiry")
	}
	// What is no job is named, and the others are there.
	os.WriteFile(filepath.Join(s.Dir(), id(3)+".json"), []byte(`{"id":`), 0o600)
	os.WriteFile(filepath.Join(s.Dir(), id(4)+".json"), []byte(`{"id":"`+id(5)+`"}`), 0o600)
	os.WriteFile(filepath.Join(s.Dir(), "notes.json"), nil, 0o600)
	list, err = s.List()
	if len(list) != 2 || err == nil || !strings.Contains(err.Error(), id(3)) || !strings.Contains(err.Error(), id(4)) {
		t.Errorf("%d jobs, %v", len(list), err)
	}
	os.Remove(filepath.Join(s.Dir(), id(3)+".json"))
	os.Remove(filepath.Join(s.Dir(), id(4)+".json"))
	for range 2 {
		if err := s.Remove(e.ID); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := s.Add(Entry{ID: "../x"}); err == nil {
		t.Error("a job with a path for an id was kept")
	}
}

func TestLock(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "spool"))
	if err := s.Add(Entry{ID: id(1)}); err != nil {
		t.Fatal(err)
	}
	stray, fresh := filepath.Join(s.Dir(), ".new-1"), filepath.Join(s.Dir(), ".new-2")
	for _, name := range []string{stray, fresh} {
		os.WriteFile(name, nil, 0o600)
	}
	old := time.Now().Add(-2 * strayAge)
	os.Chtimes(stray, old, old)
	unlock, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stray); err == nil {
		t.Error("a stray file is left")
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error("a file that is being written was removed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	if _, err := s.Lock(ctx); cbsdmq.CodeOf(err) != cbsdmq.CodeHeld {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	if unlock, err = s.Lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestBounds(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "spool"))
	if err := s.Add(Entry{ID: id(0)}); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < Max; i++ {
		if err := os.WriteFile(s.file(id(i)), []byte(`{"id":"`+id(i)+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Add(Entry{ID: id(Max)}); cbsdmq.CodeOf(err) != cbsdmq.CodeUnavailable || !strings.Contains(err.Error(), "full") {
		t.Errorf("one too many: %v", err)
	}
	if err := s.Remove(id(7)); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(Entry{ID: id(Max)}); err != nil {
		t.Error(err)
	}
}

// A file that is no job keeps no other job from being kept.
func TestAddBesideBrokenFile(t *testing.T) {
	s := At(filepath.Join(t.TempDir(), "spool"))
	if err := s.Add(Entry{ID: id(0)}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.file(id(1)), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Add(Entry{ID: id(2)}); err != nil {
		t.Error(err)
	}
	if all, err := s.List(); len(all) != 2 || err == nil {
		t.Errorf("listed %v, %v", all, err)
	}
}

func TestStrangeDirectories(t *testing.T) {
	dir := t.TempDir()
	open, file := filepath.Join(dir, "open"), filepath.Join(dir, "file")
	os.Mkdir(open, 0o750)
	os.WriteFile(file, nil, 0o600)
	for _, dir := range []string{open, file} {
		s := At(dir)
		_, lists := s.List()
		_, locks := s.Lock(t.Context())
		for _, err := range []error{lists, locks, s.Add(Entry{ID: id(1)})} {
			if e, ok := errors.AsType[*cbsdmq.Error](err); !ok || e.Code != cbsdmq.CodeBadConfig || e.Hint == "" {
				t.Errorf("%s: %v", dir, err)
			}
		}
	}
}
