package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/config"
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

func TestCheckBoot(t *testing.T) {
	workdir := filepath.Join(t.TempDir(), "pool1")
	if err := cbsdsim.Init(workdir, "pool1.my.domain"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vm1", "vm2", "vm3"} {
		var out bytes.Buffer
		args := []string{"bcreate", "jname=" + name, "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_ram=64m"}
		if status := cbsdsim.Main(args, []string{"workdir=" + workdir, "NOINTER=1"}, &out, &out); status != 0 {
			t.Fatalf("%d: %s", status, &out)
		}
	}
	cfg := config.Default()
	cfg.CBSDEnv, cfg.RunDir, cfg.Boot, cfg.Workers = workdir, t.TempDir(), config.BootStart, 2
	pool, err := openCBSD(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	rc := filepath.Join(t.TempDir(), "rc.conf")
	for seconds, warns := range map[string]bool{"90": false, "74": true, "": false} {
		if err := os.WriteFile(rc, []byte("rcshutdown_timeout=\""+seconds+"\"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		c := checker{g: &globals{stdout: &out, format: "text"}, pool: "pool1"}
		c.checkBoot(t.Context(), cfg, pool, []string{rc})
		if !strings.Contains(out.String(), "3 guests are started after a boot") || strings.Contains(out.String(), "sysrc rcshutdown_timeout=75") != warns {
			t.Errorf("%s seconds: %s", seconds, &out)
		}
	}
}
