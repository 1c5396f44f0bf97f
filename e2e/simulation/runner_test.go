package simulation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/cbsd/cbsdmq/runner"
)

// A runnerConn is an agent's connection to the runner.
type runnerConn struct {
	m    *machine
	name string
	mu   sync.Mutex
	q    []runner.Event
	more chan struct{}
	once sync.Once
	dead chan struct{}
}

var errRunnerGone = errors.New("the runner is gone")

func (c *runnerConn) fail() { c.once.Do(func() { close(c.dead) }) }

func (c *runnerConn) alive() error {
	select {
	case <-c.dead:
		return errRunnerGone
	default:
		return nil
	}
}

func (c *runnerConn) push(e runner.Event) {
	c.mu.Lock()
	c.q = append(c.q, e)
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// hold takes the machine, where the runner that c leads to still lives.
func (c *runnerConn) hold() (release func(), err error) {
	c.m.mu.Lock()
	if err := c.alive(); err != nil {
		c.m.mu.Unlock()
		return nil, err
	}
	return c.m.mu.Unlock, nil
}

func (c *runnerConn) Start(starts ...runner.Start) error {
	release, err := c.hold()
	if err != nil {
		return err
	}
	defer release()
	for _, s := range starts {
		c.m.w.trace("start", c.name, s.Job, fmt.Sprint(s.N, " above ", c.m.mark.N))
		if !c.m.start(s) {
			return errRunnerGone
		}
	}
	return nil
}

func (c *runnerConn) Ack(keys ...runner.Key) error {
	release, err := c.hold()
	if err != nil {
		return err
	}
	defer release()
	for _, k := range keys {
		delete(c.m.refused, k)
		r := c.m.runs[k]
		if r == nil || !r.event.Kind.Ended() {
			continue
		}
		delete(c.m.runs, k)
		c.m.w.trace("acknowledged", r.event.Job, fmt.Sprint(k.N))
		c.m.slots[r.slot] = false
		// The file is used again.
		if r.event.Out.Size > 0 {
			if err := os.Truncate(r.event.Out.Path, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *runnerConn) List(_ context.Context, _ string) (runner.Snapshot, error) {
	release, err := c.hold()
	if err != nil {
		return runner.Snapshot{}, err
	}
	defer release()
	c.m.conn = c
	clear(c.m.refused)
	s := runner.Snapshot{RunnerID: c.name, Mark: c.m.mark}
	for _, k := range c.m.keys() {
		s.Runs = append(s.Runs, c.m.runs[k].event)
	}
	c.m.w.trace("list", c.name, fmt.Sprint(len(s.Runs), " runs, mark ", s.Mark.N))
	return s, nil
}

func (c *runnerConn) Kill(_ context.Context, key runner.Key, sig syscall.Signal) error {
	release, err := c.hold()
	if err != nil {
		return err
	}
	defer release()
	r := c.m.runs[key]
	if r == nil || r.proc == nil || !r.proc.alive {
		return errors.New("nothing of it is left")
	}
	p := r.proc
	r.event.Signalled = true
	switch {
	case sig == syscall.SIGKILL, p.obeys == "":
		c.m.exit(p, 0, sig)
	case p.obeys == "well":
		c.m.exit(p, 0, 0)
	case p.obeys == "badly":
		c.m.exit(p, 3, 0)
	}
	return nil
}

func (c *runnerConn) Output(context.Context, runner.Key) (stdout, stderr runner.File, err error) {
	return runner.File{}, runner.File{}, nil
}

func (c *runnerConn) Next(ctx context.Context) ([]runner.Event, error) {
	for {
		c.mu.Lock()
		q := c.q
		c.q = nil
		c.mu.Unlock()
		if len(q) > 0 {
			return q, nil
		}
		select {
		case <-c.more:
		case <-c.dead:
			return nil, errRunnerGone
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *runnerConn) Close() error {
	c.fail()
	return nil
}
