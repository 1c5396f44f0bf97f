package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

	// Under the machine's mutex.
	cut     bool     // what is sent in either direction is lost
	left    int      // starts, until that is noticed
	noticed func()   // what is done then
	stuck   bool     // the runner does not read
	sent    []func() // meanwhile
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

// push tells the agent. The caller holds the machine.
func (c *runnerConn) push(e runner.Event) {
	if c.cut {
		return
	}
	c.mu.Lock()
	c.q = append(c.q, e)
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// send has the runner do what the agent asks for, as soon as it reads that. What
// was sent is done although the agent is dead by then.
func (c *runnerConn) send(f func()) error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if err := c.alive(); err != nil {
		return err
	}
	switch {
	case c.cut:
	case c.stuck, c.m.frozen != nil:
		c.stuck = true
		if !slices.Contains(c.m.stuck, c) {
			c.m.stuck = append(c.m.stuck, c)
		}
		c.sent = append(c.sent, f)
	default:
		f()
	}
	return nil
}

// request is send with a wait for the answer.
func (c *runnerConn) request(ctx context.Context, f func() error) error {
	answer := make(chan error, 1)
	if err := c.send(func() { answer <- f() }); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	default:
	}
	select {
	case err := <-answer:
		return err
	case <-c.dead:
		return errRunnerGone
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *runnerConn) Start(starts ...runner.Start) error {
	err := c.send(func() {
		for _, s := range starts {
			c.m.w.trace("start", c.name, s.Job, fmt.Sprint(s.N, " above ", c.m.mark.N))
			if !c.m.start(c, s) {
				return
			}
		}
		c.m.struck()
	})
	c.m.do(func() {
		for i := 0; c.cut && err == nil && i < len(starts); i++ {
			c.lose(starts[i])
		}
	})
	return err
}

func (c *runnerConn) Ack(keys ...runner.Key) error {
	return c.send(func() {
		for _, k := range keys {
			c.m.acknowledge(c, k)
		}
	})
}

func (c *runnerConn) List(ctx context.Context, _ string) (s runner.Snapshot, err error) {
	err = c.request(ctx, func() error {
		if c.m.conn != nil && c.m.conn != c {
			c.m.conn.fail()
		}
		c.m.conn = c
		clear(c.m.refused)
		s = runner.Snapshot{RunnerID: c.name, Mark: c.m.mark}
		for _, k := range c.m.keys() {
			s.Runs = append(s.Runs, c.m.runs[k].event)
		}
		c.m.w.trace("list", c.name, fmt.Sprint(len(s.Runs), " runs, mark ", s.Mark.N))
		return nil
	})
	return s, err
}

func (c *runnerConn) Kill(ctx context.Context, key runner.Key, sig syscall.Signal) error {
	return c.request(ctx, func() error {
		r := c.m.runs[key]
		if r == nil || r.proc == nil || !r.proc.alive && r.event.Kind.Ended() {
			return errors.New("nothing of it is left")
		}
		p := r.proc
		r.event.Signalled = true // also where it has just ended, and the runner does not know yet
		switch {
		case sig == syscall.SIGKILL, p.obeys == "":
			c.m.exit(p, 0, sig)
		case p.obeys == "well":
			c.m.exit(p, 0, 0)
		case p.obeys == "badly":
			c.m.exit(p, 3, 0)
		}
		return nil
	})
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
