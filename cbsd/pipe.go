package cbsd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// lineMax bounds what is kept of what a program says on stderr.
const lineMax = 1 << 10

// run runs a program and returns what it prints. An error has its last line.
func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	said := &head{max: lineMax}
	cmd.Stderr = said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // SIGTERM for the job is not for it
	out, err := cmd.Output()
	if err != nil {
		return out, failure(cmd, err, said)
	}
	return out, nil
}

func failure(cmd *exec.Cmd, err error, said *head) error {
	line := lastLine(said.data, anything)
	return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args[:min(len(cmd.Args), 2)], " "), err, line)
}

// A stream is one program that writes what another one reads.
type stream struct {
	write, read []string
	lock        *os.File      // stays locked until both have ended, whatever becomes of this process
	passed      func(n int64) // told how much has gone through so far; may be nil
}

// run returns how the two ended.
func (s stream) run(ctx context.Context) (writer, reader error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	from, to := exec.CommandContext(ctx, s.write[0], s.write[1:]...), exec.CommandContext(ctx, s.read[0], s.read[1:]...)
	fromSaid, toSaid := &head{max: lineMax}, &head{max: lineMax}
	from.Stderr, to.Stderr = fromSaid, toSaid
	for _, cmd := range []*exec.Cmd{from, to} {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if s.lock != nil {
			cmd.ExtraFiles = []*os.File{s.lock}
		}
	}
	out, err := from.StdoutPipe()
	if err != nil {
		return err, nil
	}
	in, err := to.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := to.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", s.read[0], err)
	}
	if err := from.Start(); err != nil {
		cancel()
		_ = to.Wait() // killed
		return fmt.Errorf("starting %s: %w", s.write[0], err), nil
	}
	_, copied := io.Copy(&counter{in, 0, s.passed}, out)
	if copied != nil {
		cancel() // the reader is gone, or ctx is
	}
	if writer = from.Wait(); writer != nil {
		writer = failure(from, writer, fromSaid)
	}
	closed := in.Close()
	if reader = to.Wait(); reader != nil {
		reader = failure(to, reader, toSaid)
	} else if copied != nil || closed != nil && !errors.Is(closed, os.ErrClosed) {
		reader = errors.Join(copied, closed)
	}
	return writer, reader
}

type counter struct {
	io.Writer
	n      int64
	passed func(n int64)
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += int64(n)
	if c.passed != nil {
		c.passed(c.n)
	}
	return n, err
}

// fails reports whether a program failed by itself, not because nobody read what
// it wrote, or because it was ended.
func fails(err error) bool {
	e, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return err != nil
	}
	ws, ok := e.Sys().(syscall.WaitStatus)
	return !ok || !ws.Signaled()
}
