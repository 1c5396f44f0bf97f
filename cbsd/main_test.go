package cbsd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/zfssim"
)

// The test binary is the simulated cbsd too, under that name, and zfs.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "zfs" {
		os.Exit(zfssim.Main(os.Getenv(zfssim.Variable), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	if cbsdsim.Called(os.Args[0], os.Environ()) {
		os.Exit(cbsdsim.Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	if len(os.Args) > 2 && os.Args[1] == "own" { // to be killed
		if err := Own(context.Background(), os.Args[2], os.Args[3], os.Args[4:], os.Stdout); err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(withZFS(m.Run))
}

// withZFS calls f with a zfs in PATH that has pools of this process.
func withZFS(f func() int) int {
	dir, err := os.MkdirTemp("", "zfs")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, "zfs"))
	}
	for name, value := range map[string]string{
		"PATH": dir + ":" + os.Getenv("PATH"), zfssim.Variable: filepath.Join(dir, "pools"), "GORACE": strings.TrimPrefix(noSleep, "GORACE="),
	} {
		err = errors.Join(err, os.Setenv(name, value))
	}
	if err != nil {
		panic(err)
	}
	return f()
}

// noSleep: under the race detector each process would sleep a second as it ends.
const noSleep = "GORACE=atexit_sleep_ms=0"

// simPool is a fresh simulated environment.
func simPool(t testing.TB, change ...func(*Config)) *Pool {
	t.Helper()
	dir := t.TempDir()
	workdir := filepath.Join(dir, "pool1")
	if err := cbsdsim.Init(workdir, "node1.example.org"); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := filepath.Join(dir, "cbsd")
	if err := os.Symlink(self, command); err != nil {
		t.Fatal(err)
	}
	cfg := Config{CBSD: command, Workdir: workdir, RunDir: filepath.Join(dir, "run")}
	for _, f := range change {
		f(&cfg)
	}
	return openPool(t, cfg)
}

func openPool(t testing.TB, cfg Config) *Pool {
	t.Helper()
	p, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.host.dist = filepath.Join(t.TempDir(), "dist") // whatever is installed on this machine
	p.host.env = func() []string { return append(p.environ(), noSleep) }
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// parseJob makes a job of a command line: name=value and words.
func parseJob(line ...string) cbsdmq.Job {
	job := cbsdmq.Job{Command: line[0]}
	var words []string
	for _, f := range line[1:] {
		if name, value, ok := strings.Cut(f, "="); ok {
			job.Args = append(job.Args, cbsdmq.Arg{Name: name, Value: value})
		} else {
			words = append(words, f)
		}
	}
	if words != nil {
		job.Meta = &cbsdmq.Meta{V: cbsdmq.MetaVersion, Words: words}
	}
	return job
}

func mustPlan(t testing.TB, p *Pool, line ...string) Plan {
	t.Helper()
	plan, err := p.Plan(parseJob(line...))
	if err != nil {
		t.Fatalf("%v: %v (%s)", line, err, cbsdmq.HintOf(err))
	}
	return plan
}

// execute runs plan as an agent would.
func execute(t testing.TB, p *Pool, plan Plan) (Exit, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.cfg.CBSD, plan.Argv...)
	cmd.Env, cmd.Dir = append(p.Env("pool1/1", plan), noSleep), p.Dir()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatalf("%v: %v", plan.Argv, err)
	}
	return Exit{Code: cmd.ProcessState.ExitCode(), Stderr: stderr.Bytes()}, stdout.Bytes()
}

// do plans and runs a command line and judges it.
func do(t testing.TB, p *Pool, line ...string) Verdict {
	t.Helper()
	plan := mustPlan(t, p, line...)
	before, err := p.Before(t.Context(), plan)
	if err != nil {
		t.Fatalf("%v: %v", line, err)
	}
	exit, out := execute(t, p, plan)
	v := p.After(t.Context(), plan, before, exit, out)
	t.Logf("cbsd %s: exit %d -> %+v\n%s", strings.Join(line, " "), exit.Code, v, out)
	return v
}

// must is do for a command that prepares something.
func must(t testing.TB, p *Pool, line ...string) {
	t.Helper()
	if v := do(t, p, line...); v.ErrCode != 0 {
		t.Fatalf("cbsd %v: %+v", line, v)
	}
}
