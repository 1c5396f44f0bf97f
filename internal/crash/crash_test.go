package crash

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const actAs = "CRASH_TEST_AS"

func TestMain(m *testing.M) {
	if how := os.Getenv(actAs); how != "" {
		os.Exit(act(how, os.Args[1]))
	}
	os.Exit(m.Run())
}

// act is a process that ends in a way.
func act(how, dir string) int {
	stop, err := Watch(dir)
	if err != nil {
		return 3
	}
	switch how {
	case "well":
		stop()
		return 0
	case "panic":
		Go("pool1/17", func() { panic("it is broken") })
	case "child": // of the goroutine for the job
		Go("pool1/17", func() { go panic("it is broken") })
	case "fatal":
		Go("pool1/17", func() {
			m := map[int]int{}
			go func() {
				for {
					m[1]++
				}
			}()
			for {
				m[2]++
			}
		})
	case "elsewhere":
		Go("pool1/17", func() { select {} })
		go panic("it is broken")
	case "killed":
		p, _ := os.FindProcess(os.Getpid())
		Go("pool1/17", func() { p.Kill() })
	}
	select {}
}

func ofPool(pool string) func(string) bool {
	return func(job string) bool { return strings.HasPrefix(job, pool+"/") }
}

func TestReports(t *testing.T) {
	for how, want := range map[string]struct {
		reports int
		job     string
	}{
		"well": {0, ""}, "panic": {1, "pool1/17"}, "child": {1, "pool1/17"}, "fatal": {1, "pool1/17"}, "elsewhere": {1, ""}, "killed": {0, ""},
	} {
		t.Run(how, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self, dir)
			cmd.Env = append(os.Environ(), actAs+"="+how)
			err = cmd.Run()
			if exit, ok := errors.AsType[*exec.ExitError](err); how != "well" && !ok || ok && exit.ExitCode() == 3 {
				t.Fatal(err)
			}
			got, err := Reports(dir, ofPool("pool2")) // another agent: it takes what names no job
			if err != nil || want.job != "" && len(got) != 0 {
				t.Errorf("the agent of another pool takes %v, %v", got, err)
			}
			own, err := Reports(dir, ofPool("pool1"))
			got = append(got, own...)
			if err != nil || len(got) != want.reports {
				t.Fatalf("got %v, %v", got, err)
			}
			for _, r := range got {
				text, err := os.ReadFile(r.File)
				if r.Job != want.job || err != nil || !strings.Contains(string(text), "goroutine") {
					t.Errorf("got %+v, %v\n%s", r, err, text)
				}
			}
			if again, err := Reports(dir, ofPool("pool1")); err != nil || len(again) != 0 {
				t.Errorf("again: %v, %v", again, err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*"+running)); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// Only a few reports are kept, and those of processes that run are left alone.
func TestPrune(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"crash-20260101T000000.000001.txt", "crash-20260101T000000.000002.txt", "crash-20260101T000000.000003.txt", "crash-20260101T000000.000004.txt", "crash-1.running", "crash-x.running"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("goroutine 1 [running]:\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := Reports(dir, ofPool("pool1")); err != nil || len(got) != 0 {
		t.Fatalf("got %v, %v", got, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != keep+2 {
		t.Errorf("%v, %v", entries, err)
	}
}
