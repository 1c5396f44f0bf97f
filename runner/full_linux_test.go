package runner

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

// Without room for its log a runner starts nothing, and forgets no end.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	testserver.SmallDisk(t, dir, "1m")
	s := &site{t: t, dir: filepath.Join(dir, "run")}
	t.Cleanup(s.cleanup)
	s.serve()
	a := s.agent("p1")
	path, open := gate(t)
	mark := filepath.Join(t.TempDir(), "ran")
	running := s.shell("p1", 1, fmt.Sprintf("exec 3<%s; exit 6", path))
	a.run(running)
	a.until(running.Key, Started)

	fill := filepath.Join(dir, "fill")
	testserver.FillDisk(t, fill)

	// The log's last page has room for some lines yet.
	var last Event
	n, accepted := uint64(1), 0
	for last.Kind != Refused {
		if n++; n > 200 {
			t.Fatal("200 starts were accepted on a full disk")
		}
		st := s.shell("p1", n, "echo x >>"+mark)
		a.run(st)
		if last = a.until(st.Key, Exited, Refused); last.Kind == Exited {
			accepted++
			a.ack(st.Key)
		}
	}
	if !last.Temporary || !strings.Contains(last.Reason, "no space left on device") {
		t.Errorf("refused with %q, temporary %v", last.Reason, last.Temporary)
	}
	if b, err := os.ReadFile(mark); len(b) != 2*accepted || err != nil && accepted > 0 {
		t.Errorf("%d starts were accepted and %d ran: %v", accepted, len(b)/2, err)
	}
	open()
	if e := a.until(running.Key, Exited); e.Status != 6 {
		t.Errorf("the end that cannot be written is told as %+v", e)
	}

	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	// Until the agent knows what was refused, nothing above it is begun.
	above := s.shell("p1", n+1, "echo x >>"+mark)
	a.run(above)
	if e := a.until(above.Key, Exited, Refused); e.Kind != Refused || !e.Temporary {
		t.Errorf("above one that was refused: %+v", e)
	}
	st := s.shell("p1", n, "echo x >>"+mark) // the same again
	a.run(st)
	a.until(st.Key, Exited)
	a.ack(st.Key, above.Key)
	st = s.shell("p1", n+2, "echo x >>"+mark)
	a.run(st)
	a.until(st.Key, Exited)
	s.restart()
	runs := s.agent().list("p1").Runs
	if len(runs) != 2 || runs[0].Kind != Exited || runs[0].Status != 6 || runs[1].Kind != Exited {
		t.Errorf("after a restart: %+v", runs)
	}
	if strings.Count(s.log(), "cannot write the log") != 1 {
		t.Errorf("it says:\n%s", s.log())
	}
}
