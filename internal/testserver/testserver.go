// Package testserver runs real broker servers for tests, each in a private
// directory and on a free loopback port, ended by its process id.
package testserver

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Process is a server that a test can kill, start again and freeze.
type Process struct {
	Addr string // host:port
	Dir  string // of what a server of a cluster keeps

	path     string
	args     []string
	env      []string                // nil = ours
	patience time.Duration           // until it accepts connections
	ready    func(addr string) error // nil: once it does
	cmd      *exec.Cmd               // nil when it does not run
	out      bytes.Buffer
}

// slowStart is how long a server may take that needs a machine of its own for ten
// seconds, on one that does much else.
const slowStart = 4 * time.Minute

// Require returns the path of a program, or skips the test: loudly, and on CI
// (environment CI=true), where it must be there, by failing.
func Require(t testing.TB, program, install string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		Missing(t, program, install)
	}
	return path
}

// Missing ends a test for want of a program as Require does.
func Missing(t testing.TB, program, install string) {
	t.Helper()
	say := t.Skipf
	if os.Getenv("CI") == "true" {
		say = t.Fatalf
	}
	say("%s is not installed: NOT TESTED. Install it with: %s", program, install)
}

// StartProcess runs a server that will accept connections on addr. It ends
// with the test.
func StartProcess(t testing.TB, addr, path string, args ...string) *Process {
	t.Helper()
	p := &Process{Addr: addr, path: path, args: args, patience: time.Minute}
	p.startWith(t)
	return p
}

// startWith starts the server for as long as the test lasts.
func (p *Process) startWith(t testing.TB) {
	t.Helper()
	p.launchWith(t)
	p.await(t)
}

// launchWith is startWith without waiting.
func (p *Process) launchWith(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		p.Kill(t)
		if t.Failed() && p.out.Len() > 0 {
			t.Logf("%s said:\n%s", p.path, p.out.Bytes())
		}
	})
	p.launch(t)
}

// Start starts the server, with the same arguments and data as before, and
// waits until it accepts connections.
func (p *Process) Start(t testing.TB) {
	t.Helper()
	p.launch(t)
	p.await(t)
}

// StartAll is Start for servers of which none can serve alone.
func StartAll(t testing.TB, servers []*Process) {
	t.Helper()
	for _, p := range servers {
		p.launch(t)
	}
	for _, p := range servers {
		p.await(t)
	}
}

func (p *Process) launch(t testing.TB) {
	t.Helper()
	command := append([]string{p.path}, p.args...)
	if s, ok := t.(*Stage); ok {
		command = slices.Concat(s.Launcher, command)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.Env = p.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // some servers are started by a script
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", command[0], err)
	}
	p.cmd = cmd
}

func (p *Process) await(t testing.TB) {
	t.Helper()
	Eventually(t, p.patience, func() error {
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			return fmt.Errorf("%s does not accept connections: %w", p.path, err)
		}
		if p.ready != nil {
			c.Close()
			return p.ready(p.Addr)
		}
		return c.Close()
	})
}

// Kill ends the server at once, as SIGKILL does.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.cmd.Wait()
	p.cmd = nil
}

// KillAll ends servers at one moment: were the end of each waited for, clients of
// a cluster could go on with those that are left meanwhile.
func KillAll(t testing.TB, servers []*Process) {
	t.Helper()
	for _, p := range servers {
		if p.cmd != nil {
			syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		}
	}
	for _, p := range servers {
		p.Kill(t)
	}
}

// Stop freezes the server: it keeps its connections and answers nothing.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGSTOP)
	// On a busy machine it goes on for a moment.
	Eventually(t, 10*time.Second, func() error {
		out, err := exec.Command("ps", "-ax", "-o", "pgid=", "-o", "state=").Output()
		if err != nil {
			return fmt.Errorf("stopping %s: ps: %w", p.path, err)
		}
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) == 2 && f[0] == strconv.Itoa(p.cmd.Process.Pid) && !strings.HasPrefix(f[1], "T") && !strings.HasPrefix(f[1], "Z") {
				return fmt.Errorf("stopping %s: a process of it goes on", p.path)
			}
		}
		return nil
	})
}

// Cont ends Stop.
func (p *Process) Cont(t testing.TB) {
	t.Helper()
	p.Signal(t, syscall.SIGCONT)
}

// Addrs are the addresses of servers, with commas.
func Addrs(servers []*Process) string {
	addrs := make([]string, len(servers))
	for i, p := range servers {
		addrs[i] = p.Addr
	}
	return strings.Join(addrs, ",")
}

// Args are those that the server is started with.
func (p *Process) Args() []string { return p.args }

// PID is that of the server, 0 when it does not run.
func (p *Process) PID() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Signal sends a signal to the server.
func (p *Process) Signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil {
		t.Fatalf("signalling %s: %v", p.path, err)
	}
}

// WriteScript writes a program of the shell that can be executed at once: a
// process that is forked meanwhile would keep it open, and the file busy.
func WriteScript(path, text string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(text), 0o755)
}

// Eventually calls f until it returns nil, and fails the test with its error
// if that takes longer than limit. It is for what a real process does in its
// own time.
func Eventually(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %v", limit, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
