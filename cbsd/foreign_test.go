package cbsd

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/google/go-cmp/cmp"
)

func none(int) bool { return false }

// background runs a command of the pool that takes long.
func background(t *testing.T, p *Pool, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(p.cfg.CBSD, argv...)
	cmd.Env = p.environ()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

func slow(t *testing.T, p *Pool) {
	t.Helper()
	if err := (cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"*": {Delay: 300}}}).Write(p.cfg.Workdir); err != nil {
		t.Fatal(err)
	}
}

func TestForeign(t *testing.T) {
	t.Parallel()
	p := simPool(t)
	slow(t, p)
	if b, busy := p.Foreign(t.Context(), []string{"fg1"}, none); busy {
		t.Fatalf("busy with nothing: %+v", b)
	}
	cmd := background(t, p, "bset", "jname=fg1", "vnc_password=hunter2")
	background(t, p, "bls", "jname=fg2")   // reads
	background(t, p, "bset", "jname=fg11") // another guest
	var b Busy
	eventually(t, "the command is seen", func() (busy bool) {
		b, busy = p.Foreign(t.Context(), []string{"fg0", "fg1"}, none)
		return busy
	})
	want := Busy{PID: cmd.Process.Pid, Command: "cbsd bset jname=fg1 vnc_password=***", Guest: "fg1"}
	b.TTY, b.User = "", ""
	if d := cmp.Diff(want, b); d != "" {
		t.Error(d)
	}
	if b, busy := p.Foreign(t.Context(), []string{"fg2", "fg3"}, none); busy {
		t.Errorf("busy: %+v", b)
	}
	if b, busy := p.Foreign(t.Context(), []string{"fg1"}, func(pid int) bool { return pid == cmd.Process.Pid }); busy {
		t.Errorf("busy with our own: %+v", b)
	}
	if b, busy := p.Foreign(t.Context(), []string{"fg1"}, func(pid int) bool { return pid == os.Getpid() }); busy {
		t.Errorf("busy with a child of our own: %+v", b)
	}
	if _, busy := p.Foreign(t.Context(), []string{WholePool}, none); !busy {
		t.Error("the whole pool is free")
	}
	other := simPool(t)
	if b, busy := other.Foreign(t.Context(), []string{"fg1"}, none); busy {
		t.Errorf("busy with another pool's: %+v", b)
	}
}

func TestScanCached(t *testing.T) {
	s := new(scanner)
	if _, err := s.list(time.Hour); err != nil {
		t.Fatal(err)
	}
	first := s.at
	if _, err := s.list(time.Hour); err != nil || s.at != first {
		t.Errorf("scanned again: %v", err)
	}
	if _, err := s.list(0); err != nil || s.at == first {
		t.Errorf("not scanned again: %v", err)
	}
}

func TestCommandWords(t *testing.T) {
	p := barePool(t, func(c *Config) { c.CBSD = "/opt/cbsd-wrapper" })
	for line, want := range map[string]string{
		"/usr/local/bin/cbsd /usr/local/cbsd/sudoexec/bstart jname=\"vm1\"": "bstart jname=\"vm1\"",
		"cbsd bstart jname=vm1":         "bstart jname=vm1",
		"/opt/cbsd-wrapper bstart vm1":  "bstart vm1",
		"cbsd":                          "",
		"cbsd bls":                      "",
		"cbsd blogin vm1":               "",
		"cbsd save-jail-info jname=vm1": "",
		"vi bstart":                     "",
		"/bin/sh /usr/local/cbsd/sudoexec/bremove vm1":   "bremove vm1",
		"/bin/sh /usr/local/cbsd/share/bhyverun.sh -c x": "",
		"": "",
	} {
		if got := strings.Join(p.commandWords(strings.Fields(line)), " "); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
	if got := p.commandWords([]string{"cbsd", "-c", "/usr/local/bin/cbsd bstart inter=0 vm1 vm2"}); strings.Join(got, " ") != "bstart inter=0 vm1 vm2" {
		t.Errorf("task: got %q", got)
	}
}

func TestNamedGuest(t *testing.T) {
	for line, want := range map[string]string{
		`bstart jname="vm1"`: "vm1", "bstart vm1": "vm1", "bclone old=vm0 new=vm1": "vm1", "bset jname=vm2 tags=vm1": "", "bstart vm12": "", "bls": "",
	} {
		if got := namedGuest(strings.Fields(line)[1:], []string{"vm1"}); got != want {
			t.Errorf("%s: got %q", line, got)
		}
	}
}

func TestIsOurs(t *testing.T) {
	parents := map[int]int{30: 20, 20: 10, 10: 1, 40: 41, 41: 40}
	own := func(pid int) bool { return pid == 10 }
	for pid, want := range map[int]bool{30: true, 20: true, 10: true, 40: false, 99: false} {
		if isOurs(pid, parents, own) != want {
			t.Errorf("%d: got %v", pid, !want)
		}
	}
}

func TestParseJails(t *testing.T) {
	got := parseJails("1 jail1\n7 web.example\n\nnot a line\n-1 x\n")
	if d := cmp.Diff(map[string]int{"jail1": 1, "web.example": 7, "x": -1}, got); d != "" {
		t.Error(d)
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "vm1", true}, {"vm*", "vm1", true}, {"VM*", "vm1", true}, {"*1", "vm1", true}, {"v*1", "vm1", true}, {"v*m*1", "vm1", true},
		{"vm1", "vm1", true}, {"vm", "vm1", false}, {"x*", "vm1", false}, {"vm1*1", "vm1", false}, {"*x*", "vm1", false}, {"", "vm1", false},
	} {
		if got := matches(tt.pattern, tt.name); got != tt.want {
			t.Errorf("%s %s: got %v", tt.pattern, tt.name, got)
		}
	}
}
