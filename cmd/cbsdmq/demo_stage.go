package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/proc"
)

// A stage is everything that a demo runs, in a private directory.
type stage struct {
	g      *globals
	dir    string
	keep   bool
	exe    string // this program
	broker demoBroker
	runner *process
	agents map[string]*process
	swept  []string // workdirs all of whose processes are ours

	janitor *janitor
}

// A process is this program, running as something else.
type process struct {
	*os.Process
	ended chan struct{} // closed when it has
	state *os.ProcessState
}

func newStage(g *globals, keep bool, broker demoBroker) (*stage, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	dir, err := os.MkdirTemp("", "cbsdmq-demo-")
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"bin", "etc", "log"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	// Under that name this program is the simulated cbsd.
	if err := os.Symlink(exe, filepath.Join(dir, "bin", "cbsd")); err != nil {
		return nil, err
	}
	s := &stage{g: g, dir: dir, keep: keep, exe: exe, broker: broker, agents: make(map[string]*process)}
	if err := s.startJanitor(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, nil
}

func (s *stage) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// say prints a paragraph of the tour.
func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.g.stdout, "\n"+format+"\n", args...)
}

// startRunner runs the runner as a service would. Its end with the demo is
// sure, where one that an agent has started would outlive us.
func (s *stage) startRunner() (err error) {
	s.runner, err = s.start("runner", "runner", "--dir", s.path("run"))
	return err
}

// configure writes a pool's file. more is added to its keys.
func (s *stage) configure(pool, workdir, cbsd string, more map[string]any) error {
	section, err := s.section(pool)
	if err != nil {
		return err
	}
	keys := map[string]any{
		"pool": pool, "cbsdenv": workdir, "cbsd": cbsd, "broker": s.broker.kind, s.broker.kind: section,
		"state_dir": s.path("state"), "run_dir": s.path("run"), "kill_grace": "2s", "reply_ttl": demoReplyTTL,
	}
	maps.Copy(keys, more)
	text, err := json.MarshalIndent(keys, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.path("etc", pool+".json"), append(text, '\n'), 0o600)
}

// startAgent runs the agent of a pool and returns when it serves.
func (s *stage) startAgent(ctx context.Context, pool string) error {
	p, err := s.start(pool, "agent", "--config", s.path("etc", pool+".json"))
	if err != nil {
		return err
	}
	s.agents[pool] = p
	return s.await(ctx, "the agent of "+pool+" to serve", func() (bool, error) {
		select {
		case <-p.ended:
			return false, hopeless{fmt.Errorf("the agent of %s has ended: %v", pool, p.state)}
		default:
		}
		out, err := s.ask(ctx, "pools", "-o", "json")
		for line := range bytes.Lines(out) {
			var in poolInfo
			if json.Unmarshal(line, &in) == nil && in.Pool == pool && in.Agent != nil && in.Agent.PID == p.Pid {
				return true, nil
			}
		}
		return false, err
	})
}

// killAgent ends an agent as a crash does.
func (s *stage) killAgent(pool string) error {
	p := s.agents[pool]
	delete(s.agents, pool)
	if err := p.Kill(); err != nil {
		return err
	}
	<-p.ended
	return nil
}

// start runs this program with its output in the directory log, in a process
// group of its own so that a Ctrl-C reaches us alone.
func (s *stage) start(name string, args ...string) (*process, error) {
	out, err := os.OpenFile(s.path("log", name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(s.exe, args...)
	cmd.Args[0] = "cbsdmq"
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), demoEnv+"="+s.dir)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting cbsdmq %s: %w", strings.Join(args, " "), err)
	}
	p := &process{Process: cmd.Process, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // the state says it too
		p.state = cmd.ProcessState
	}()
	return p, nil
}

// client is a command of ours for the pools of the stage.
func (s *stage) client(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.exe, args...)
	cmd.Args[0] = "cbsdmq"
	cmd.Env = append(os.Environ(), "CBSDMQ_POOLS="+s.path("etc"), demoEnv+"="+s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// run shows a command and what it prints as it comes, and returns the last line
// of that. It fails where the exit status is not the one that was expected.
func (s *stage) run(ctx context.Context, want int, args ...string) (string, error) {
	fmt.Fprintf(s.g.stdout, "\n  $ %s\n", commandLine(args))
	cmd := s.client(ctx, args...)
	shown := &indenter{w: s.g.stdout, prefix: "  ", fresh: true}
	cmd.Stdout, cmd.Stderr = shown, shown // one pipe: what is printed keeps its order
	err := cmd.Run()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	shown.end()
	status := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		status = e.ExitCode()
	} else if err != nil {
		return "", err
	}
	if status != 0 {
		fmt.Fprintf(s.g.stdout, "  (exit status %d)\n", status)
	}
	if status != want {
		return "", fmt.Errorf("%s ended with status %d, not %d", commandLine(args), status, want)
	}
	return strings.TrimSpace(string(shown.last)), nil
}

// ask runs a command that is not shown and returns its stdout.
func (s *stage) ask(ctx context.Context, args ...string) ([]byte, error) {
	out, err := s.client(ctx, args...).Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%s: %s", commandLine(args), bytes.TrimSpace(e.Stderr))
	}
	return out, err
}

// job is what the agent knows of a job.
func (s *stage) job(ctx context.Context, id string) (cbsdmq.JobInfo, error) {
	var j cbsdmq.JobInfo
	out, err := s.ask(ctx, "jobs", "-o", "json", id)
	if err != nil {
		return j, err
	}
	return j, json.Unmarshal(out, &j)
}

// hopeless is an error that waiting does not mend.
type hopeless struct{ error }

// await waits until f says yes. An error of f is for the end of the patience,
// unless it is hopeless.
func (s *stage) await(ctx context.Context, what string, f func() (bool, error)) error {
	const patience, pause = time.Minute, 50 * time.Millisecond
	deadline := time.Now().Add(patience)
	for {
		ok, err := f()
		switch {
		case ok:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, new(hopeless)):
			return err
		case time.Now().After(deadline):
			return errors.Join(fmt.Errorf("waiting for %s took longer than %s", what, patience), err)
		}
		time.Sleep(pause)
	}
}

// showLogs prints what the processes said last.
func (s *stage) showLogs() {
	const most = 2000
	files, _ := filepath.Glob(s.path("log", "*.log"))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil || len(text) == 0 {
			continue
		}
		fmt.Fprintf(s.g.stderr, "--- %s\n%s", filepath.Base(file), text[max(0, len(text)-most):])
	}
}

// close ends every process of the stage and removes its directory.
func (s *stage) close() error {
	for _, p := range s.agents {
		p.stop()
	}
	// Commands and guests have sessions of their own; none of them may be left.
	var errs []error
	for _, workdir := range s.swept {
		errs = append(errs, sweep("workdir", workdir))
	}
	if s.runner != nil {
		s.runner.stop()
	}
	errs = append(errs, s.broker.close(s.g.stdout))
	if s.keep {
		fmt.Fprintf(s.g.stdout, "kept: %s\n", s.dir)
	} else {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	s.janitor.dismiss()
	return errors.Join(errs...)
}

// stop ends a process of ours, politely at first.
func (p *process) stop() {
	const grace = 3 * time.Second
	_ = p.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(grace):
		_ = p.Kill()
		<-p.ended
	}
}

// sweep ends every process that has the variable in its environment. With
// workdir these are all that was started for a simulated one: commands, guests,
// and what keeps them.
func sweep(variable, value string) error {
	const grace, patience = 2 * time.Second, 30 * time.Second
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		pids, err := proc.FindEnv(variable, value)
		if err != nil || len(pids) == 0 {
			return err
		}
		sig := syscall.SIGTERM
		if time.Since(begun) > grace {
			sig = syscall.SIGKILL
		}
		if time.Since(begun) > patience {
			return fmt.Errorf("processes %v do not end", pids)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, sig) // it may have ended
		}
	}
}

// indenter writes text with a prefix before each line.
type indenter struct {
	w      io.Writer
	prefix string
	fresh  bool   // at the beginning of a line
	last   []byte // line
}

func (i *indenter) Write(p []byte) (int, error) {
	var b bytes.Buffer
	for line := range bytes.Lines(p) {
		if i.fresh {
			i.last = i.last[:0]
			if len(bytes.TrimSpace(line)) > 0 {
				b.WriteString(i.prefix)
			}
		}
		i.last = append(i.last, line...)
		b.Write(line)
		i.fresh = bytes.HasSuffix(line, []byte("\n"))
	}
	if _, err := i.w.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// end ends the last line.
func (i *indenter) end() {
	if !i.fresh {
		fmt.Fprintln(i.w)
	}
}

// commandLine shows arguments as they are typed in a shell.
func commandLine(args []string) string {
	words := []string{"cbsdmq"}
	for _, a := range args {
		if strings.ContainsAny(a, " $`\"\\*;&|<>()") {
			a = "'" + a + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}
