package cbsdsim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Version is the version of CBSD whose behaviour is simulated.
const Version = "14.1.3a"

// Called tells whether a process that was started as argv0 with environment env
// is the simulator and must call [Main]: by its name (cbsd, cbsdsim, initenv), or because
// the simulator started its own binary as a guest. A binary that runs Main for
// other reasons, such as a test, must ask Called before anything else.
func Called(argv0 string, env []string) bool {
	base := filepath.Base(argv0)
	return base == "cbsd" || base == "cbsdsim" || base == "initenv" || lookupEnv(env, roleVariable) != ""
}

// Main runs one cbsd command and returns its exit status. args is the command
// line without the program's name. The workdir is the value of workdir in env,
// else of cbsd_workdir; without either it says so on stderr and returns 1.
func Main(args, env []string, stdout, stderr io.Writer) int {
	if role := lookupEnv(env, roleVariable); role != "" {
		return runRole(role, env, stderr)
	}
	return run(args, env, os.Stdin, isTerminal(os.Stdin), stdout, stderr)
}

func run(args, env []string, stdin io.Reader, tty bool, stdout, stderr io.Writer) int {
	if len(args) == 2 && args[0] == "-c" {
		args = strings.Fields(args[1])
	}
	dir := lookupEnv(env, "workdir")
	if dir == "" {
		dir = lookupEnv(env, "cbsd_workdir")
	}
	if dir == "" {
		fmt.Fprintln(stderr, "cbsd: no workdir defined")
		return 1
	}
	if len(args) > 0 && args[0] == "inter=0" { // called as initenv
		return initenv(workdir(dir), args[1:], stdout)
	}
	if len(args) == 0 { // the real one is a shell and reads commands from its input
		return 0
	}
	c := &call{
		name: args[0], wd: workdir(dir), env: env,
		stdin: stdin, tty: tty, out: stdout, errw: stderr,
		begun: time.Now(),
	}
	defer c.close()
	err := c.dispatch(args[1:])
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	default:
		fmt.Fprintf(stderr, "cbsdsim: %s: %v\n", c.name, err)
		return 1
	}
}

// A call is one command being carried out.
type call struct {
	name      string // as called; done lines and complaints carry it
	wd        workdir
	env       []string
	stdin     io.Reader
	tty       bool // stdin is a terminal
	out, errw io.Writer
	begun     time.Time
	conf      Config
	behaviour Behaviour
	argv      []string // as they came
	args      arguments
	store     *db // the inventory, opened at first use
}

func (c *call) close() {
	if c.store != nil {
		c.store.close()
	}
}

// An exitCode ends a command with that status; what there is to say has been said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// fail says why on standard output, as cbsd does, and ends the command with 1.
func (c *call) fail(format string, args ...any) error {
	c.say(format, args...)
	return exitCode(1)
}

func (c *call) say(format string, args ...any) {
	fmt.Fprintf(c.out, format+"\n", args...)
}

// done prints the closing line of a lifecycle command, name as the real script is called.
func (c *call) done(name string, begun time.Time) {
	c.say("%s done in %d seconds", name, int(time.Since(begun).Round(time.Second).Seconds()))
}

// sub is c acting as another command, as the real scripts call one another.
func (c *call) sub(name string, kv ...string) *call {
	s := *c
	s.name, s.begun = name, time.Now()
	s.args = arguments{values: map[string]string{}}
	for _, w := range kv {
		s.args.add(w)
	}
	return &s
}

func (c *call) getenv(name string) string { return lookupEnv(c.env, name) }

func (c *call) noninteractive() bool { return c.getenv("NOINTER") != "" || !c.tty }

func lookupEnv(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			return v
		}
	}
	return ""
}

func isTerminal(f *os.File) bool {
	fi, err := f.Stat()
	if err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(fi, null)
}
