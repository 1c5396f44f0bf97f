package runner

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func genKey(t *rapid.T) Key {
	return Key{Pool: rapid.String().Draw(t, "pool"), Epoch: rapid.Uint64().Draw(t, "epoch"), N: rapid.Uint64().Draw(t, "n")}
}

func genTime(t *rapid.T) time.Time { return time.Unix(0, rapid.Int64Min(1).Draw(t, "time")) }

func genFile(t *rapid.T) File {
	return File{
		Path: rapid.String().Draw(t, "path"), Size: rapid.Int64Min(0).Draw(t, "size"),
		Dropped: rapid.Int64Min(0).Draw(t, "dropped"),
	}
}

func genEvent(t *rapid.T) Event {
	return Event{
		Key:       genKey(t),
		Kind:      Kind(rapid.IntRange(int(Accepted), int(Lost)).Draw(t, "kind")),
		Job:       rapid.String().Draw(t, "job"),
		PID:       rapid.IntMin(0).Draw(t, "pid"),
		Start:     ProcStart(rapid.Int64().Draw(t, "start")),
		Status:    rapid.IntRange(0, 255).Draw(t, "status"),
		Signal:    syscall.Signal(rapid.IntRange(0, 64).Draw(t, "signal")),
		Errno:     syscall.Errno(rapid.IntRange(0, 200).Draw(t, "errno")),
		Signalled: rapid.Bool().Draw(t, "signalled"),
		Temporary: rapid.Bool().Draw(t, "temporary"),
		Out:       genFile(t),
		Err:       genFile(t),
		Reason:    rapid.String().Draw(t, "reason"),
		At:        genTime(t),
	}
}

func TestFrames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOf(rapid.String())
		start := Start{
			Key: genKey(t), Job: rapid.String().Draw(t, "job"), Path: rapid.String().Draw(t, "path"),
			Args: texts.Draw(t, "args"), Env: texts.Draw(t, "env"), Dir: rapid.String().Draw(t, "dir"),
			OutputMax: rapid.Int64().Draw(t, "max"),
		}
		events := rapid.SliceOf(rapid.Custom(genEvent)).Draw(t, "events")
		var b []byte
		b = endFrame(appendStart(beginFrame(b, frameStart), &start), 0)
		at := len(b)
		b = endFrame(appendSnapshot(beginFrame(b, frameSnapshot), &Snapshot{Mark: start.Key, Runs: events}), at)

		r := bufio.NewReader(bytes.NewReader(b))
		typ, body, _, err := readFrame(r, nil)
		if err != nil || typ != frameStart {
			t.Fatalf("first frame %q, %v", typ, err)
		}
		d := decode(body)
		if diff := cmp.Diff(start, d.start(), cmpopts.EquateEmpty()); diff != "" || d.err != nil || d.s != "" {
			t.Fatalf("start (-want +got), %v:\n%s", d.err, diff)
		}
		if typ, body, _, err = readFrame(r, body); err != nil || typ != frameSnapshot {
			t.Fatalf("second frame %q, %v", typ, err)
		}
		d = decode(body)
		if k := d.key(); k != start.Key {
			t.Fatalf("mark %v, want %v", k, start.Key)
		}
		if diff := cmp.Diff(events, d.events(), cmpopts.EquateEmpty()); diff != "" || d.err != nil || d.s != "" {
			t.Fatalf("events (-want +got), %v:\n%s", d.err, diff)
		}
		if _, _, _, err := readFrame(r, nil); err != io.EOF {
			t.Fatalf("after the last frame: %v", err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	e := Event{Key: Key{"p", 1, 2}, Kind: Exited, Job: "j", At: time.Unix(1, 0)}
	f.Add(appendStart(nil, &Start{Key: e.Key, Args: []string{"a"}}))
	f.Add(appendEvent([]byte{1}, &e))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, read := range []func(*decoder) []byte{
			func(d *decoder) []byte { s := d.start(); return appendStart(nil, &s) },
			func(d *decoder) []byte { return appendEvents(nil, d.events()) },
			func(d *decoder) []byte { d.key(); d.file(); d.time(); d.strings(); return nil },
		} {
			d := decode(b)
			written := read(d)
			if d.err != nil {
				if d.s != "" {
					t.Error("goes on after an error")
				}
				continue
			}
			if len(written) > 2*len(b)+64 {
				t.Errorf("%d bytes became %d", len(b), len(written))
			}
			again := decode(written)
			if rewritten := read(again); written != nil && (again.err != nil || again.s != "" || !bytes.Equal(written, rewritten)) {
				t.Errorf("what was written is read as something else: %v\n%x\n%x", again.err, written, rewritten)
			}
		}
	})
}

func appendEvents(b []byte, list []Event) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		b = appendEvent(b, &list[i])
	}
	return b
}

// FuzzFrames reads a stream of frames that may be anything.
func FuzzFrames(f *testing.F) {
	f.Add(endFrame(append(beginFrame(nil, frameStart), "abc"...), 0))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 'x'})
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 1, 'x', 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		var buf []byte
		var written []byte
		for {
			typ, body, _, err := readFrame(r, buf)
			if err != nil {
				break
			}
			if len(body) > len(b) {
				t.Fatalf("a frame of %d bytes out of %d", len(body), len(b))
			}
			at := len(written)
			written = endFrame(append(beginFrame(written, typ), body...), at)
			buf = body
		}
		if !bytes.HasPrefix(b, written) {
			t.Errorf("read as %x", written)
		}
	})
}

// FuzzReplay starts a runner on a log that was cut or damaged: it starts, keeps
// every mark of a whole line, and knows no more runs than there are lines.
func FuzzReplay(f *testing.F) {
	var log []byte
	log = appendBegin(log, "boot", "runner")
	for n := range uint64(3) {
		k := Key{"p", 1, n + 1}
		log = appendRecord(log, recAccept, k, "p/1", 5, int64(n), 1<<20)
		log = appendRecord(log, recStart, k, "", 6, 1<<30, 7)
		if n == 1 {
			log = appendRecord(log, recExit, k, "", 7, 0, 0, 1, 0, 1, 0)
		}
	}
	log = appendRecord(log, recAck, Key{"p", 1, 2}, "")
	f.Add(log)
	f.Add(log[:len(log)/2])
	f.Add([]byte("I \"p\" 1 2 3 -4 5 \"job\"\nI \"p\" 1 2 3 9223372036854775807 5 \"job\"\nS \"p\" 1 2 3 -1 5\n"))
	f.Add([]byte("\n\nM \"p\" 18446744073709551615 18446744073709551615\n"))
	f.Fuzz(func(t *testing.T, log []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, logName), log, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := newServer(Config{Dir: dir}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("the runner does not start: %v", err)
		}
		defer unix.Close(s.null)
		defer s.events.file.Close()
		runs := 0
		for _, p := range s.pools {
			runs += len(p.runs)
		}
		lines := bytes.Count(log, []byte("\n"))
		if runs > lines {
			t.Errorf("%d runs out of %d lines", runs, lines)
		}
		whole := log[:bytes.LastIndexByte(log, '\n')+1]
		for line := range bytes.Lines(whole) {
			k, ok := parseMark(string(bytes.TrimSuffix(line, []byte("\n"))))
			var mark Key
			if p := s.pools[k.Pool]; p != nil {
				mark = p.mark
			}
			if ok && k.After(mark) {
				t.Errorf("the mark of %q is lost", line)
			}
		}
	})
}

// history applies the lines of a log to a run, as replay does.
func history(t *rapid.T, log []byte) *run {
	var r *run
	s := &server{slots: &slots{}}
	for line := range bytes.Lines(log) {
		rec, err := parseRecord(string(bytes.TrimSuffix(line, []byte("\n"))))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if rec.op == recAccept {
			r = s.revive(&rec)
			continue
		}
		rec.apply(r)
	}
	return r
}

func TestRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := genEvent(t)
		if e.Kind == Refused {
			e.Kind = Accepted // refusals are not logged
		}
		want := &run{ev: e, slot: rapid.IntMin(0).Draw(t, "slot"), max: rapid.Int64Min(0).Draw(t, "max")}
		got := history(t, appendHistory(nil, want))

		// What each kind of event does not tell.
		w := want.ev
		w.Out.Path, w.Err.Path, w.Temporary = got.ev.Out.Path, got.ev.Err.Path, false
		w.Signalled = w.Kind == Exited // it may have been
		if w.Kind == Orphan {
			w.Kind = Started
		}
		if w.Kind == Accepted || w.PID == 0 {
			w.PID, w.Start = 0, 0
		}
		if !(w.Kind == Exited || w.Kind == Lost) {
			w.Out.Size, w.Err.Size = 0, 0
		}
		if w.Kind != Exited {
			w.Status, w.Signal = 0, 0
		}
		if w.Kind != Failed {
			w.Errno, w.Reason = 0, ""
		}
		if w.Kind == Started && w.PID == 0 {
			w.Kind = Accepted
		}
		if diff := cmp.Diff(w, got.ev); diff != "" {
			t.Fatalf("event (-want +got):\n%s", diff)
		}
		if got.slot != want.slot || got.max != want.max {
			t.Fatalf("slot %d, max %d, want %d, %d", got.slot, got.max, want.slot, want.max)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	for _, line := range []string{
		"B boot id", `M "p" 1 2`, `I "p" 1 2 3 4 5 "job"`, `S "p" 1 2 3 4 5`, `T "p" 1 2 3 4`,
		`X "p" 1 2 3 4 5 6 7 8 9`, `F "p" 1 2 3 4 "reason"`, `L "p" 1 2 3 4 5 6 7`, `A "p" 1 2`, `I "p"1 2`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		rec, err := parseRecord(line)
		k, ok := parseMark(line)
		if err == nil && (rec.op == recMark || rec.op == recAccept) && (!ok || k != rec.key) {
			t.Errorf("%q is a mark of %v, and read as one of %v, %v", line, rec.key, k, ok)
		}
		if n, text, known := numbers(rec.op); err == nil && known {
			written := appendRecord(nil, rec.op, rec.key, rec.text, rec.nums[:n]...)
			if !text && rec.text != "" {
				t.Errorf("%q has a text", line)
			}
			again, err := parseRecord(string(bytes.TrimSuffix(written, []byte("\n"))))
			if err != nil || again != rec || bytes.Count(written, []byte("\n")) != 1 {
				t.Errorf("%q was written as %q and read as %+v, %v", line, written, again, err)
			}
		}
	})
}

// A log that was written anew says the same as the long one.
func TestCompact(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	open := func() *server {
		s, err := newServer(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	kept := func(s *server) (events []Event) {
		for _, p := range s.pools {
			for _, r := range p.runs {
				events = append(events, r.ev)
			}
		}
		return events
	}
	s := open()
	c := &conn{server: s, dead: true} // nobody is told
	for n := range 3 {
		s.pool(fmt.Sprintf("p%d", n)).owner = c
	}
	path := filepath.Join(cfg.Dir, logName)
	var largest int64
	for n := uint64(1); n <= 10000; n++ {
		k := Key{fmt.Sprintf("p%d", n%3), 1, n}
		s.accept(c, []Start{{Key: k, Job: "job", Path: "/bin/true"}})
		r := <-s.queue
		s.finish(r)
		s.mu.Lock()
		r.ev.Kind, r.ev.PID, r.ev.Start = Exited, int(n), ProcStart(n)
		s.record(r)
		s.mu.Unlock()
		if n%1000 != 0 { // some are never acknowledged
			s.acknowledge(c, []Key{k})
		}
		largest = max(largest, sizeAt(path))
	}
	if largest > 2*compactBusy {
		t.Errorf("the log has grown to %d bytes", largest)
	}
	if err := s.events.flush(); err != nil {
		t.Fatal(err)
	}
	want := kept(s)
	for _, next := range []*server{open(), open()} {
		less := func(a, b Event) bool { return b.After(a.Key) }
		// Of a run that was too short to be introduced the pid is not logged.
		diff := cmp.Diff(want, kept(next), cmpopts.SortSlices(less), cmpopts.IgnoreFields(Event{}, "Signalled", "PID", "Start"),
			cmpopts.EquateApproxTime(0))
		if diff != "" {
			t.Errorf("runs (-want +got):\n%s", diff)
		}
		for uuid, p := range s.pools {
			if got := next.pools[uuid].mark; got != p.mark {
				t.Errorf("mark of %s is %v, want %v", uuid, got, p.mark)
			}
		}
	}
	if entries, err := os.ReadDir(filepath.Join(cfg.Dir, outputName)); err != nil || len(entries) > 2*maxFree {
		t.Errorf("%d output files, %v", len(entries), err)
	}
}

// What cannot be written is written later, and nothing twice or in halves.
func TestLogThatCannotBeWritten(t *testing.T) {
	l := &eventLog{path: filepath.Join(t.TempDir(), "log")}
	if err := l.commit([]byte("early\n")); err == nil {
		t.Error("a log that is not open takes lines")
	}
	if err := l.compact([]byte("1\n")); err != nil {
		t.Fatal(err)
	}
	good := l.file
	broken, err := os.Open(l.path) // for reading only
	if err != nil {
		t.Fatal(err)
	}
	l.file = broken
	l.add([]byte("2\n"))
	if err := l.commit([]byte("3\n")); err == nil {
		t.Error("a commit that was not written succeeds")
	}
	if err := l.flush(); err == nil {
		t.Error("a flush that wrote nothing succeeds")
	}
	l.file = good
	if err := l.commit([]byte("4\n")); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(l.path)
	if err != nil {
		t.Fatal(err)
	}
	// The empty line ends what might have been a half one.
	if got := string(b); got != "1\n\n2\n4\n" {
		t.Errorf("the log holds %q", got)
	}
	if l.size != int64(len(b)) {
		t.Errorf("its size is taken for %d, not %d", l.size, len(b))
	}
}
