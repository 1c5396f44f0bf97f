package runner

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq/internal/proc"
)

// actAs is the environment variable by which the test binary is told to be one
// of the processes of a test.
const actAs = "RUNNER_TEST_AS"

func TestMain(m *testing.M) {
	switch os.Getenv(actAs) {
	case "":
		os.Exit(m.Run())
	case "runner":
		os.Exit(actRunner(os.Args[1]))
	case "agent":
		os.Exit(actAgent(os.Args[1], os.Args[2:]))
	case "writer":
		os.Exit(actWriter(os.Args[1:]))
	case "inspector":
		os.Exit(actInspector())
	}
	os.Exit(64)
}

func actRunner(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := Serve(ctx, Config{Dir: dir, Log: log, Version: "test", every: 20 * time.Millisecond}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// actAgent starts a shell script for pool p1 and waits to be killed.
func actAgent(dir string, script []string) int {
	c, err := Dial(context.Background(), Config{Dir: dir})
	if err == nil {
		_, err = c.List(context.Background(), "p1")
	}
	if err == nil {
		err = c.Start(Start{Key: Key{"p1", 1, 1}, Job: script[0], Path: "/bin/sh", Args: []string{"-c", script[1]}})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		events, err := c.Next(context.Background())
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(events[len(events)-1].Kind)
	}
}

// actWriter writes lines of 16 bytes that hold their own offset, so that any
// piece of its output tells where it belongs: up to each of the given offsets,
// and waits for a file of that offset's name in the working directory before it
// goes on.
func actWriter(until []string) int {
	w := bufio.NewWriterSize(os.Stdout, 1<<16)
	var line [16]byte
	at := int64(0)
	for _, name := range until {
		end, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			return 2
		}
		for ; at < end; at += 16 {
			patternLine(&line, at)
			w.Write(line[:])
		}
		if err := w.Flush(); err != nil {
			return 1
		}
		for {
			if _, err := os.Stat(name); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	return 0
}

// patternLine writes at in 15 digits and a newline.
func patternLine(line *[16]byte, at int64) {
	for i := 14; i >= 0; i-- {
		line[i] = byte('0' + at%10)
		at /= 10
	}
	line[15] = '\n'
}

// within is how long anything in these tests may take.
const within = 30 * time.Second

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// A site is a directory and the runner that serves it.
type site struct {
	t    testing.TB
	dir  string
	wrap []string // command before the runner's, or nil
	cmd  *exec.Cmd

	mu   sync.Mutex
	jobs []string
}

// newSite serves a new directory.
func newSite(t testing.TB, wrap ...string) *site {
	t.Helper()
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "run"), wrap: wrap}
	t.Cleanup(s.cleanup)
	s.serve()
	return s
}

func (s *site) cleanup() {
	s.kill()
	if log := s.log(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic:") {
		s.t.Errorf("the runner says:\n%s", log)
	}
	for _, job := range s.jobs {
		pids, err := proc.FindEnv(JobVariable, job)
		if err != nil {
			s.t.Error(err)
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// serve starts a runner and waits until it serves.
func (s *site) serve() {
	s.t.Helper()
	args := append(append([]string(nil), s.wrap...), os.Args[0], s.dir)
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Env = append(os.Environ(), actAs+"=runner")
	log, err := os.OpenFile(s.dir+".stderr", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the runner serves", func() bool {
		c, err := Dial(s.t.Context(), Config{Dir: s.dir})
		if err != nil {
			return false
		}
		ours := c.PID() == s.cmd.Process.Pid
		c.Close()
		return ours
	})
}

// log returns what the runners have said.
func (s *site) log() string {
	b, err := os.ReadFile(s.dir + ".stderr")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.t.Error(err)
	}
	return string(b)
}

// kill ends the runner with SIGKILL.
func (s *site) kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *site) restart() {
	s.t.Helper()
	s.kill()
	s.serve()
}

// job returns the name of a job and sees to it that nothing of it outlives the
// test.
func (s *site) job(n int) string {
	job := fmt.Sprintf("%s/%d", s.dir, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs = append(s.jobs, job)
	return job
}

// shell returns a Start of a script, as number n of epoch 1.
func (s *site) shell(pool string, n uint64, script string) Start {
	return Start{
		Key: Key{pool, 1, n}, Job: s.job(int(n)), Path: "/bin/sh", Args: []string{"-c", script},
		Env: []string{"PATH=/usr/bin:/bin"},
	}
}

// An agent is a connection to a site's runner, and the events that came.
type agent struct {
	t testing.TB
	*Client
	seen []Event
}

// agent connects, and takes the pools over.
func (s *site) agent(pools ...string) *agent {
	s.t.Helper()
	c, err := Dial(s.t.Context(), Config{Dir: s.dir})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	a := &agent{t: s.t, Client: c}
	for _, p := range pools {
		a.list(p)
	}
	return a
}

func (a *agent) list(pool string) Snapshot {
	a.t.Helper()
	snap, err := a.List(a.t.Context(), pool)
	if err != nil {
		a.t.Fatal(err)
	}
	return snap
}

// run sends starts.
func (a *agent) run(starts ...Start) {
	a.t.Helper()
	if err := a.Start(starts...); err != nil {
		a.t.Fatal(err)
	}
}

// until waits for an event of one of the kinds.
func (a *agent) until(k Key, kinds ...Kind) Event {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), within)
	defer cancel()
	for {
		for i, e := range a.seen {
			for _, kind := range kinds {
				if e.Key == k && e.Kind == kind {
					a.seen = append(a.seen[:i:i], a.seen[i+1:]...)
					return e
				}
			}
		}
		events, err := a.Next(ctx)
		if err != nil {
			a.t.Fatalf("waiting for %v of %v: %v; seen %v", kinds, k, err, a.seen)
		}
		a.seen = append(a.seen, events...)
	}
}

func (a *agent) ack(keys ...Key) {
	a.t.Helper()
	if err := a.Ack(keys...); err != nil {
		a.t.Fatal(err)
	}
}

func content(t testing.TB, f File) string {
	t.Helper()
	b, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:min(int64(len(b)), f.Size)])
}

// gate is a file that a script can wait for with `. gate`: it blocks reading a
// fifo until the test opens it.
func gate(t testing.TB) (path string, open func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, func() {
		t.Helper()
		eventually(t, "somebody waits at the gate", func() bool {
			f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
			if errors.Is(err, syscall.ENXIO) {
				return false
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			return true
		})
	}
}
