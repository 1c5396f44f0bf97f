package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// programs are what is put to the torture.
type programs struct{ cbsdmq, client, cbsd string }

// build makes the programs from the source in root, into dir. A cbsdmq that was
// named is used as it is.
func build(root, dir, cbsdmq string) (programs, error) {
	p := programs{filepath.Join(dir, "cbsdmq"), filepath.Join(dir, "bs_router-client"), filepath.Join(dir, "cbsd")}
	type target struct{ out, pkg string }
	targets := []target{{p.cbsd, "./cbsd/cbsdsim/cmd/cbsdsim"}}
	if cbsdmq == "" {
		targets = append(targets, target{p.cbsdmq, "./cmd/cbsdmq"})
	} else {
		abs, err := filepath.Abs(cbsdmq)
		if err != nil {
			return p, fmt.Errorf("finding cbsdmq: %w", err)
		}
		p.cbsdmq = abs
	}
	for _, t := range targets {
		cmd := exec.Command("go", "build", "-o", t.out, t.pkg)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return p, fmt.Errorf("go build %s: %w\n%s", t.pkg, err, out)
		}
	}
	if err := os.Symlink(p.cbsdmq, p.client); err != nil {
		return p, fmt.Errorf("linking bs_router-client: %w", err)
	}
	return p, nil
}

// A process is one of ours. What it prints is kept, up to a limit.
type process struct {
	cmd    *exec.Cmd
	done   chan struct{}
	stdout text
	stderr text
}

// text keeps the first megabyte of what is written to it.
type text struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *text) Write(p []byte) (int, error) {
	const most = 1 << 20
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p[:min(len(p), max(0, most-t.buf.Len()))])
	return len(p), nil
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

func (s *stage) start(path string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// A runner that it starts keeps the pipes open.
	p.cmd.WaitDelay = waitDelay
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s %s: %w", filepath.Base(path), strings.Join(args, " "), err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// kill ends it at once, also where it is frozen.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

func (p *process) gone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
