package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Ensure connects to the runner of cfg.Dir as Dial does. Where none runs it
// starts one first: exe with args, detached from the caller so that it outlives
// it: in a session of its own, with / as working directory and its errors in
// runner.out in cfg.Dir. The program must call Serve with the same directory.
func Ensure(ctx context.Context, cfg Config, exe string, args []string) (*Client, error) {
	c, err := Dial(ctx, cfg)
	if !errors.Is(err, ErrNoRunner) {
		return c, err
	}
	if err := makeDir(cfg.Dir); err != nil {
		return nil, err
	}
	exited, err := detach(cfg.Dir, exe, args)
	if err != nil {
		return nil, fmt.Errorf("starting a runner: %w", err)
	}
	// A runner that ends at once may have found another one there, which an agent
	// beside this one has started and which is about to serve.
	var ended error
	var giveUp <-chan time.Time
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		select {
		case ended = <-exited:
			giveUp = time.After(time.Second)
		case <-giveUp:
			return nil, fmt.Errorf("starting a runner: %w", ended)
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the runner: %w", ctx.Err())
		}
		c, err := Dial(ctx, cfg)
		if !errors.Is(err, ErrNoRunner) {
			return c, err
		}
	}
}

// detach starts exe. The channel gets how it ended, never nil.
func detach(dir, exe string, args []string) (<-chan error, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	out, err := os.OpenFile(filepath.Join(dir, errorsName), os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p, err := os.StartProcess(exe, append([]string{exe}, args...), &os.ProcAttr{
		Dir:   "/",
		Files: []*os.File{null, out, out},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, err
	}
	exited := make(chan error, 1)
	go func() {
		state, err := p.Wait()
		if err == nil {
			err = fmt.Errorf("%s ended: %v, see %s", exe, state, out.Name())
		}
		exited <- err
	}()
	return exited, nil
}
