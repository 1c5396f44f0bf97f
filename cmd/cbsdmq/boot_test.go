package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/cbsd"
)

func TestCbsddServes(t *testing.T) {
	main, other := t.TempDir(), t.TempDir()
	link := filepath.Join(t.TempDir(), "jails")
	if err := os.Symlink(main, link); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		rc   string
		want string
	}{
		"not enabled":      {"cbsd_workdir=%s", ""},
		"enabled":          {"cbsd_workdir=\"%s\"\ncbsdd_enable=\"YES\"", "cbsdd of rc.conf"},
		"by a link":        {"cbsdd_enable='yes' # main\ncbsd_workdir=" + link, "cbsdd of rc.conf"},
		"another workdir":  {"cbsd_workdir=" + other + "\ncbsdd_enable=YES", ""},
		"switched off":     {"cbsd_workdir=%s\ncbsdd_enable=YES\ncbsdd_enable=NO", ""},
		"only in a remark": {"cbsd_workdir=%s\n# cbsdd_enable=YES", ""},
	} {
		file := filepath.Join(t.TempDir(), "rc.conf")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(test.rc, "%s", main)), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := cbsddServes([]string{"/nosuch", file}, main); !strings.HasPrefix(got, test.want) || (got == "") != (test.want == "") {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	pid := filepath.Join(main, "var/run/cbsdd.pid")
	if err := os.MkdirAll(filepath.Dir(pid), 0o755); err != nil {
		t.Fatal(err)
	}
	for pidText, want := range map[int]string{os.Getpid(): fmt.Sprintf("a cbsdd serves %s, pid %d", main, os.Getpid()), 1 << 30: ""} {
		if err := os.WriteFile(pid, fmt.Appendln(nil, pidText), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := cbsddServes(nil, main); got != want {
			t.Errorf("pid %d: %q, want %q", pidText, got, want)
		}
	}
}

func TestStopEstimate(t *testing.T) {
	guests := []cbsd.BootGuest{
		{Group: 0, AStart: true}, {Group: 0, Running: true}, {Group: 0},
		{Group: 1, AStart: true}, {Group: 1, AStart: true}, {Group: 1, AStart: true},
	}
	if got, want := stopEstimate(guests, 2), 3*stopTime; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := stopEstimate(nil, 2); got != time.Duration(0) {
		t.Errorf("no guests: %s", got)
	}
}
