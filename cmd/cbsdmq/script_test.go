package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// patience is how long a process is waited for; it ends a test that hangs.
const patience = 20 * time.Second

// TestScripts runs the transcripts in testdata. Beside testscript's own
// commands they have those of a site.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			s := &site{t: t, logs: t.TempDir(), processes: make(map[string]*exec.Cmd)}
			t.Cleanup(s.close)
			testscript.Run(t, testscript.Params{
				Files:               []string{file},
				Setup:               s.setup,
				Cmds:                s.commands(),
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
			})
		})
	}
}

// A site is what one transcript plays on: pools with simulated CBSD, their
// broker, agents and runner.
type site struct {
	t         *testing.T
	work      string
	logs      string // of agents and runner, by name
	broker    *testserver.Process
	processes map[string]*exec.Cmd
}

func (s *site) setup(env *testscript.Env) error {
	s.work = env.WorkDir
	env.Setenv("CBSDMQ_POOLS", s.path("etc"))
	env.Setenv("LOGS", s.logs)
	return os.Mkdir(s.path("etc"), 0o755)
}

func (s *site) path(elem ...string) string {
	return filepath.Join(append([]string{s.work}, elem...)...)
}

func (s *site) close() {
	for name := range s.processes {
		s.end(name)
	}
}

// commands are what a transcript can use:
//
//	pool NAME [nats]         make a pool with simulated CBSD and its file etc/NAME.json; its broker is beanstalkd
//	agent NAME               start the agent of a pool and wait until it serves
//	bs_router FILE NAME      the same, as the original program
//	kill9 NAME               kill the agent of a pool
//	broker up|down           start or end beanstalkd
//	slow NAME COMMAND SEC    let a command of the pool take so long
//	status N COMMAND ...     the command must end with exit status N
//	until PATTERN COMMAND... run the command until its stdout matches
//	capture VAR              keep the last stdout in an environment variable
//	interrupt NAME           Ctrl-C for a command that was started with &NAME&
func (s *site) commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	type command = func(ts *testscript.TestScript, args []string) error
	table := map[string]struct {
		args int // at least
		run  command
	}{
		"pool":    {1, s.pool},
		"agent":   {1, s.agent},
		"router":  {2, s.router},
		"kill9":   {1, s.kill9},
		"broker":  {1, s.brokerUpDown},
		"slow":    {3, s.slow},
		"status":  {2, s.status},
		"until":   {2, s.until},
		"capture": {1, s.capture},
	}
	out := make(map[string]func(ts *testscript.TestScript, neg bool, args []string))
	for name, c := range table {
		out[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) < c.args {
				ts.Fatalf("%s: wrong use", name)
			}
			ts.Check(c.run(ts, args))
		}
	}
	return out
}

func (s *site) pool(ts *testscript.TestScript, args []string) error {
	name := args[0]
	if err := cbsdsim.Init(s.path(name), name+".my.domain"); err != nil {
		return err
	}
	section := map[string]any{"tube": "cbsd_" + name, "reply_tube_prefix": "cbsd_" + name + "_result_id", "reconnect_timeout": 1}
	broker := "beanstalkd"
	if len(args) > 1 {
		broker = args[1]
		section["uri"], section["embedded_listen"] = "embedded", "127.0.0.1:0"
	} else {
		if s.broker == nil {
			s.broker = testserver.BeanstalkdWithoutBinlog(s.t)
		}
		section["uri"] = s.broker.Addr
	}
	cbsd, err := exec.LookPath("cbsd")
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(map[string]any{
		"cbsdenv": s.path(name), "cbsd": cbsd, "broker": broker, broker: section,
		"logfile": filepath.Join(s.logs, name+".log"), "state_dir": s.path("state"), "kill_grace": "2s",
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.path("etc", name+".json"), text, 0o600)
}

// start runs the program under one of its names; it ends with the transcript.
func (s *site) start(ts *testscript.TestScript, name, program string, args ...string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = s.work
	out, err := os.OpenFile(filepath.Join(s.logs, name+".out"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return err
	}
	s.processes[name] = cmd
	return nil
}

// end kills a process of start and what it says goes to the log of a failed test.
func (s *site) end(name string) {
	cmd := s.processes[name]
	delete(s.processes, name)
	cmd.Process.Kill()
	cmd.Wait()
	if s.t.Failed() {
		for _, file := range []string{name + ".out", name + ".log"} {
			text, _ := os.ReadFile(filepath.Join(s.logs, file))
			s.t.Logf("%s:\n%s", file, text)
		}
	}
}

func (s *site) runner(ts *testscript.TestScript) error {
	if s.processes["runner"] != nil {
		return nil
	}
	return s.start(ts, "runner", "cbsdmq", "runner", "--dir", s.path("state", "run"))
}

func (s *site) agent(ts *testscript.TestScript, args []string) error {
	if err := s.runner(ts); err != nil {
		return err
	}
	if err := s.start(ts, args[0], "cbsdmq", "agent", "--config", s.path("etc", args[0]+".json")); err != nil {
		return err
	}
	return s.serving(ts, args[0])
}

// router starts the agent by the name of an original program.
func (s *site) router(ts *testscript.TestScript, args []string) error {
	if err := s.runner(ts); err != nil {
		return err
	}
	if err := s.start(ts, args[1], args[0], "-config", s.path("etc", args[1]+".json")); err != nil {
		return err
	}
	return s.serving(ts, args[1])
}

func (s *site) serving(ts *testscript.TestScript, name string) error {
	return s.await(ts, regexp.MustCompile(`"pool":"`+name+`".*"state":"serving"`), []string{"cbsdmq", "pools", "-o", "json"})
}

func (s *site) kill9(_ *testscript.TestScript, args []string) error {
	if s.processes[args[0]] == nil {
		return fmt.Errorf("%s does not run", args[0])
	}
	s.end(args[0])
	return nil
}

func (s *site) brokerUpDown(_ *testscript.TestScript, args []string) error {
	if args[0] == "up" {
		s.broker.Start(s.t)
	} else {
		s.broker.Kill(s.t)
	}
	return nil
}

func (s *site) slow(_ *testscript.TestScript, args []string) error {
	seconds, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return err
	}
	c := cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{args[1]: {Delay: seconds}}}
	return c.Write(s.path(args[0]))
}

func (s *site) status(ts *testscript.TestScript, args []string) error {
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
		if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return err
		}
	} else if err != nil {
		return err
	}
	ts.Logf("[exit status %d]", got)
	if got != want {
		return fmt.Errorf("exit status %d, want %d", got, want)
	}
	return nil
}

func (s *site) until(ts *testscript.TestScript, args []string) error {
	pattern, err := regexp.Compile(`(?m)` + args[0])
	if err != nil {
		return err
	}
	return s.await(ts, pattern, args[1:])
}

// await runs a command until its stdout matches.
func (s *site) await(ts *testscript.TestScript, pattern *regexp.Regexp, command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	for {
		cmd := exec.Command(path, command[1:]...)
		cmd.Dir, cmd.Env = s.work, append(os.Environ(), "CBSDMQ_POOLS="+s.path("etc"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if pattern.Match(out) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%q does not print %s: %v\n%s%s", command, pattern, err, out, stderr.Bytes())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *site) capture(ts *testscript.TestScript, args []string) error {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
	return nil
}
