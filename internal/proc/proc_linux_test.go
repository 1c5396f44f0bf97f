package proc

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const tail = " 34816 55 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 8 9 10"
	got, err := parseStat([]byte("42 (a) S (b) Z 1 40 41" + tail))
	if err != nil {
		t.Fatal(err)
	}
	want := Process{PID: 42, PPID: 1, PGID: 40, SID: 41, Zombie: true, TTY: "pts/0", Start: 987654}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parseStat (-want +got):\n%s", diff)
	}
	for _, line := range []string{
		"", "42", "42 (sh", "42 (sh) ", "42 (sh) S 1 2 3", "x (sh) S 1 40 41" + tail,
		strings.Replace("42 (sh) S 1 40 41"+tail, "987654", "never", 1),
	} {
		if p, err := parseStat([]byte(line)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", line, p)
		}
	}
}

func TestTTYName(t *testing.T) {
	for nr, want := range map[uint32]string{
		0:          "",
		136 << 8:   "pts/0",
		136<<8 | 7: "pts/7",
		137<<8 | 1: "pts/257",
		4<<8 | 1:   "tty1",
		4<<8 | 64:  "ttyS0",
		5<<8 | 1:   "5:1",
	} {
		if got := ttyName(nr); got != want {
			t.Errorf("ttyName(%#x) = %q, want %q", nr, got, want)
		}
	}
}
