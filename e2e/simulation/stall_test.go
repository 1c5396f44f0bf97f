package simulation

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq/e2e/judge"
	"github.com/cbsd/cbsdmq/runner"
)

// cutRunner breaks the agent's connection to the runner, which lives on. What is
// sent is lost, and nobody notices before so many starts were, or some seconds
// have passed. Then the runner cannot be reached for a while. With strike the
// agent is killed as soon as it has sent a start to the runner again.
func (m *machine) cutRunner(starts int, away time.Duration, strike bool) {
	m.do(func() {
		c := m.conn
		if c == nil {
			return
		}
		c.cut, c.left = true, starts
		c.noticed = sync.OnceFunc(func() {
			m.hangUp(c)
			m.away, m.strike = true, strike
			time.AfterFunc(away, func() { m.do(func() { m.away = false }) })
		})
		time.AfterFunc(5*time.Second, func() { m.do(c.noticed) })
	})
}

// lose is a start that was sent over a connection that is cut.
func (c *runnerConn) lose(s runner.Start) {
	c.m.w.trace("start", c.name, s.Job, "is lost")
	c.m.w.count("a start is lost on its way")
	if c.left--; c.left > 0 {
		c.m.swallowed(s.Job)
	} else {
		c.noticed()
	}
}

// hangUp ends a connection.
func (m *machine) hangUp(c *runnerConn) {
	c.fail()
	if m.conn == c {
		m.conn = nil
	}
}

// struck kills the agent that has just sent starts, where it is to be.
func (m *machine) struck() {
	if l := m.w.agent.Load(); m.strike && l != nil {
		m.strike = false
		m.w.count("killed after its first start to a runner that is back")
		l.die("start sent")
	}
}

// freeze has the runner stand still: it reads nothing, and sees no command end.
func (m *machine) freeze() {
	m.do(func() {
		if m.frozen == nil {
			m.frozen, m.since = make(chan struct{}), time.Now()
		}
	})
}

// thaw lets it go on.
func (m *machine) thaw() { m.do(m.thawed) }

func (m *machine) thawed() {
	if m.frozen == nil {
		return
	}
	close(m.frozen)
	m.frozen = nil
	unseen, stuck := m.unseen, m.stuck
	m.unseen, m.stuck = nil, nil
	m.w.event(judge.Event{Kind: judge.RunnerFrozen, Pool: pool, From: m.since})
	// It looks at one thing after the other, in any order.
	later := func(f func()) {
		time.AfterFunc(m.w.dice.upTo("thaw", 20*time.Millisecond), func() { m.do(f) })
	}
	number := m.runner
	for _, f := range unseen {
		later(func() {
			if m.runner == number {
				m.see(f)
			}
		})
	}
	for _, c := range stuck {
		later(func() {
			if m.frozen != nil { // again
				m.stuck = append(m.stuck, c)
				return
			}
			for _, f := range c.sent {
				f()
			}
			c.sent, c.stuck = nil, false
		})
	}
}

// see has the runner see something, as soon as it works.
func (m *machine) see(f func()) {
	if m.frozen != nil {
		m.unseen = append(m.unseen, f)
		return
	}
	f()
}

// forgetStalled drops what a runner that is killed had not seen and read.
func (m *machine) forgetStalled() {
	for _, c := range m.stuck {
		c.sent = nil
		c.fail()
	}
	m.unseen, m.stuck = nil, nil
	m.thawed()
}

// greet waits for the runner's first word.
func (m *machine) greet(ctx context.Context) error {
	var frozen chan struct{}
	m.do(func() { frozen = m.frozen })
	if frozen == nil {
		return nil
	}
	const helloTimeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	select {
	case <-frozen:
		return nil
	case <-ctx.Done():
		return errors.New("the runner does not say a word")
	}
}

// acknowledge forgets a run, or that a start was refused.
func (m *machine) acknowledge(c *runnerConn, k runner.Key) {
	if c == m.conn {
		delete(m.refused, k)
	}
	r := m.runs[k]
	if r == nil || !r.event.Kind.Ended() {
		return
	}
	delete(m.runs, k)
	m.w.trace("acknowledged", r.event.Job)
	m.slots[r.slot] = false
	// The file is used again.
	if r.event.Out.Size > 0 {
		if err := os.Truncate(r.event.Out.Path, 0); err != nil {
			panic(err)
		}
	}
}

// stall has a process stand still for a while: each of its calls, and each write
// of its journal, waits.
func (l *life) stall(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stalled != nil || l.isDead() {
		return
	}
	l.w.trace("stalled", l.name, d.String())
	from, ch := time.Now(), make(chan struct{})
	l.stalled = ch
	go func() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.dead:
		}
		l.mu.Lock()
		l.stalled = nil
		l.mu.Unlock()
		if l.agent {
			l.w.event(judge.Event{Kind: judge.AgentFrozen, Pool: pool, From: from})
		}
		close(ch)
	}()
}

// stand waits until the process does not stand still any more.
func (l *life) stand() {
	l.mu.Lock()
	ch := l.stalled
	l.mu.Unlock()
	if ch != nil {
		select {
		case <-ch:
		case <-l.dead:
		}
	}
}
