package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/internal/metrics"
)

// Stats count what a pool's agents of one process have done. They outlive a
// Server, which is made anew when the configuration is read again.
type Stats struct {
	mu    sync.Mutex
	ended map[cbsdmq.State]int64
	waits *metrics.Durations
	runs  *metrics.Durations
}

// NewStats makes Stats that have counted nothing.
func NewStats() *Stats {
	return &Stats{
		ended: make(map[cbsdmq.State]int64),
		waits: metrics.NewDurations(10*time.Millisecond, 100*time.Millisecond, time.Second, 10*time.Second, time.Minute, 10*time.Minute, time.Hour),
		runs:  metrics.NewDurations(100*time.Millisecond, time.Second, 5*time.Second, 30*time.Second, 2*time.Minute, 10*time.Minute, time.Hour, 6*time.Hour),
	}
}

// count takes in a job that has ended.
func (s *Stats) count(state cbsdmq.State, accepted, begun, now time.Time) {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.ended[state]++
	s.mu.Unlock()
	if !begun.IsZero() {
		s.waits.Observe(begun.Sub(accepted))
		s.runs.Observe(now.Sub(begun))
	}
}

// The metrics. Each has the label pool.
var (
	mReady    = &metrics.Family{Name: "cbsdmq_pool_ready", Help: "1 while the pool takes and runs jobs, see /-/ready.", Kind: metrics.Gauge}
	mJobs     = &metrics.Family{Name: "cbsdmq_jobs", Help: "Accepted jobs that have not ended, by state.", Kind: metrics.Gauge}
	mOldest   = &metrics.Family{Name: "cbsdmq_oldest_waiting_seconds", Help: "How long the job waits that has waited longest; 0 where none does.", Kind: metrics.Gauge}
	mEnded    = &metrics.Family{Name: "cbsdmq_jobs_ended_total", Help: "Jobs that have ended since the agent was started, by state.", Kind: metrics.Counter}
	mWaits    = &metrics.Family{Name: "cbsdmq_job_wait_seconds", Help: "From acceptance to begin.", Kind: metrics.Histogram}
	mRuns     = &metrics.Family{Name: "cbsdmq_job_run_seconds", Help: "From begin to end.", Kind: metrics.Histogram}
	mBroker   = &metrics.Family{Name: "cbsdmq_broker_connected", Help: "0 while the broker is out of reach.", Kind: metrics.Gauge}
	mOwed     = &metrics.Family{Name: "cbsdmq_replies_owed", Help: "Last replies that the broker has not confirmed yet.", Kind: metrics.Gauge}
	mRunner   = &metrics.Family{Name: "cbsdmq_runner_up", Help: "1 while the agent is connected to the runner.", Kind: metrics.Gauge}
	mWritable = &metrics.Family{Name: "cbsdmq_journal_writable", Help: "0 while the journal cannot be written, as on a full disk.", Kind: metrics.Gauge}
	mBytes    = &metrics.Family{Name: "cbsdmq_journal_bytes", Help: "Size of the journal with its log.", Kind: metrics.Gauge}
)

// Families are all metrics.
func Families() []*metrics.Family {
	return []*metrics.Family{mReady, mJobs, mOldest, mEnded, mWaits, mRuns, mBroker, mOwed, mRunner, mWritable, mBytes}
}

// NotReady lists why the Server does not take or run jobs now; nothing: it does.
func (s *Server) NotReady() (reasons []string) {
	if t := s.trouble.Load(); t != nil {
		reasons = append(reasons, "the journal cannot be written: "+*t)
	}
	if t := s.runner.missing(); t != "" {
		reasons = append(reasons, t)
	}
	if s.drain.Load() {
		reasons = append(reasons, "it is about to end")
	}
	for _, e := range s.cfg.Endpoints {
		if err := e.away(); err != nil {
			reasons = append(reasons, fmt.Sprintf("%s at %s is out of reach: %v", e.Name, e.Bus.Addr(), err))
		}
	}
	return reasons
}

// away is why the broker is out of reach, nil where it is not as far as is known.
func (e Endpoint) away() error {
	if b, ok := e.Bus.(interface{ Away() error }); ok {
		return b.Away()
	}
	return nil
}

var errStuck = errors.New("its loop does not answer: only a restart of the agent helps")

// Alive returns an error where the Server's loop does not answer before ctx ends.
func (s *Server) Alive(ctx context.Context) error {
	answer := make(chan struct{})
	if !s.post(ctx, func(*loop) { close(answer) }) {
		return errStuck
	}
	select {
	case <-answer:
		return nil
	case <-s.life.Done():
		return nil // it was made anew
	case <-ctx.Done():
		return errStuck
	}
}

// Metrics adds the figures of the pool to a page.
func (s *Server) Metrics(ctx context.Context, p *metrics.Page) {
	pool := []string{"pool", s.cfg.Pool}
	with := func(name, value string) []string { return append(slices.Clip(pool), name, value) }
	in := s.Info()
	p.AddBool(mReady, len(s.NotReady()) == 0, pool...)
	p.Add(mJobs, float64(max(in.Queued, 0)), with("state", string(cbsdmq.Queued))...)
	p.Add(mJobs, float64(in.Running), with("state", string(cbsdmq.Running))...)
	p.Add(mJobs, float64(in.Held), with("state", string(cbsdmq.Held))...)
	if oldest, err := s.cfg.Journal.Reader().Oldest(ctx); err == nil {
		age := 0.0
		if !oldest.IsZero() {
			age = max(0, time.Since(oldest).Seconds())
		}
		p.Add(mOldest, age, pool...)
	}
	for _, e := range s.cfg.Endpoints {
		broker := with("broker", e.Name)
		p.AddBool(mBroker, e.away() == nil, broker...)
		p.Add(mOwed, float64(s.out[e.Name].size()), broker...)
	}
	p.AddBool(mRunner, s.runner.get() != nil, pool...)
	p.AddBool(mWritable, s.trouble.Load() == nil, pool...)
	p.Add(mBytes, float64(s.cfg.Journal.Reader().Bytes()), pool...)
}

// Metrics adds the figures of a pool to a page.
func (s *Stats) Metrics(pool string, p *metrics.Page) {
	s.mu.Lock()
	for _, state := range []cbsdmq.State{cbsdmq.Done, cbsdmq.Failed, cbsdmq.Refused, cbsdmq.Cancelled, cbsdmq.Timeout, cbsdmq.Unknown} {
		p.Add(mEnded, float64(s.ended[state]), "pool", pool, "state", string(state))
	}
	s.mu.Unlock()
	p.AddDurations(mWaits, s.waits, "pool", pool)
	p.AddDurations(mRuns, s.runs, "pool", pool)
}

// NotServed adds the figures of a pool that is not served to a page.
func NotServed(pool string, p *metrics.Page) { p.Add(mReady, 0, "pool", pool) }
