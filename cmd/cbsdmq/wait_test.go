package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
)

// What transcripts wait for, and what waits for them. On a machine that has much
// else to do any second may pass between two lines of a transcript.

// held is how a command acts that waits: first it prints something, so that who
// sees that knows that it has begun.
func held(until string) cbsdsim.Behaviour { return cbsdsim.Behaviour{Delay: 0.01, Until: until} }

func (s *site) hold(_ *testscript.TestScript, args []string) error {
	s.holds++
	file := s.path(fmt.Sprintf("go%d", s.holds))
	s.held[args[0]] = file
	return s.simulate(args[0], args[1], held(file))
}

func (s *site) letGo(_ *testscript.TestScript, args []string) error {
	if s.held[args[0]] == "" {
		return fmt.Errorf("nothing of %s is held", args[0])
	}
	return os.WriteFile(s.held[args[0]], nil, 0o600)
}

func (s *site) deaf(_ *testscript.TestScript, args []string) error {
	b := held(s.path("never"))
	if len(args) > 2 {
		seconds, err := strconv.ParseFloat(args[2], 64)
		if err != nil {
			return err
		}
		b = cbsdsim.Behaviour{Delay: seconds}
	}
	b.Trap = true
	return s.simulate(args[0], args[1], b)
}

// served is how often the agents of a pool have said that they serve it.
func (s *site) served(pool string) int {
	text, _ := os.ReadFile(filepath.Join(s.logs, pool+".log")) // there may be none yet
	return bytes.Count(text, []byte("msg=serving "))
}

func (s *site) serves(pool string, times int) error {
	for deadline := time.Now().Add(patience); s.served(pool) < times; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not served", pool)
		}
	}
	return nil
}

// reload waits until the pool is served again.
func (s *site) reload(_ *testscript.TestScript, args []string) error {
	served := s.served(args[0])
	if err := s.processes[args[0]].Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	return s.serves(args[0], served+1)
}

func (s *site) until(ts *testscript.TestScript, args []string) error {
	pattern, err := regexp.Compile(`(?m)` + args[0])
	if err != nil {
		return err
	}
	stdout, stderr, err := s.lastOf(pattern, args[1:])
	if err != nil {
		return err
	}
	return ts.Exec("sh", "-c", `printf %s "$1"; printf %s "$2" >&2`, "sh", string(stdout), string(stderr))
}

// await runs a command until its stdout matches.
func (s *site) await(pattern *regexp.Regexp, command []string) error {
	_, _, err := s.lastOf(pattern, command)
	return err
}

// lastOf is await with what the command printed at last.
func (s *site) lastOf(pattern *regexp.Regexp, command []string) (stdout, stderr []byte, err error) {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return nil, nil, err
	}
	deadline := time.Now().Add(patience)
	for {
		cmd := exec.Command(path, command[1:]...)
		cmd.Dir, cmd.Env = s.work, append(os.Environ(), "CBSDMQ_POOLS="+s.path(etc))
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if pattern.Match(out) {
			return out, said.Bytes(), nil
		}
		if time.Now().After(deadline) {
			return nil, nil, fmt.Errorf("%q does not print %s: %v\n%s%s", command, pattern, err, out, said.Bytes())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *site) appears(ts *testscript.TestScript, args []string) error {
	pattern, err := regexp.Compile(`(?m)` + args[0])
	if err != nil {
		return err
	}
	return s.hasLine(pattern, ts.MkAbs(args[1]))
}

// hasLine waits until a file matches.
func (s *site) hasLine(pattern *regexp.Regexp, file string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		text, err := os.ReadFile(file)
		if pattern.Match(text) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not have %s: %v\n%s", file, pattern, err, text)
		}
	}
}

// enough is for commands that have a time of their own, a part of which they need
// until they do what the transcript is about.
func (s *site) enough(ts *testscript.TestScript, args []string) error {
	pattern, err := regexp.Compile(`(?m)` + args[0])
	if err != nil {
		return err
	}
	for seconds := 1; ; seconds *= 2 {
		command := []string{args[1]}
		for _, arg := range args[2:] {
			command = append(command, strings.ReplaceAll(arg, "SECONDS", strconv.Itoa(seconds)))
		}
		err := s.status(ts, command)
		if pattern.MatchString(ts.ReadFile("stdout")) || pattern.MatchString(ts.ReadFile("stderr")) {
			return err
		}
		if seconds > 30 {
			return fmt.Errorf("it does not print %s in %d seconds: %w", pattern, seconds, err)
		}
	}
}

func (s *site) twice(_ *testscript.TestScript, args []string) error {
	name, again := args[0], args[1:]
	stdout, stderr := s.path(name+".stdout"), s.path(name+".stderr")
	said := func() int {
		text, _ := os.ReadFile(stderr)
		return bytes.Count(text, []byte("; Ctrl-C again within "))
	}
	for try := 1; ; try++ {
		before, cmd, ended := said(), s.processes[name], make(chan struct{})
		delete(s.processes, name)
		go func() { defer close(ended); _ = cmd.Wait() }()
		hangs := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer hangs.Stop()
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
	wait:
		for said() == before {
			select {
			case <-time.After(time.Millisecond):
			case <-ended:
				break wait
			}
		}
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
		switch code := cmd.ProcessState.ExitCode(); {
		case code == cbsdmq.ExitCancelled:
			return nil
		case code != cbsdmq.ExitGaveUp || try == 5:
			return fmt.Errorf("%s ended with %v, want exit status %d", name, cmd.ProcessState, cbsdmq.ExitCancelled)
		}
		if err := errors.Join(os.Remove(stdout), s.start(name, stdout, stderr, again...), s.hasLine(regexp.MustCompile("^Progress"), stdout)); err != nil {
			return err
		}
	}
}
