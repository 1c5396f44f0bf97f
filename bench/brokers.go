package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/cbsd/cbsdmq/bus/brokers"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// What is to be reached on each broker.
const (
	goalShare   = 0.8 // of the jobs a second on the in-memory bus ...
	goalSpare   = 2   // ... wherever the broker alone is so many times as fast
	goalLatency = 2.0 // times the floor
	goalIdle    = 1.0 // percent of a core, with ten pools
	goalBack    = 2.0 // seconds from the server's return to a job's end
	awayFor     = 6 * time.Second
	latencyJobs = 300
)

// figures are what was measured on one broker.
type figures struct {
	v                                   *venue
	through, rate, floor, latency, back sample
	message                             sample // seconds of processor
	idle                                float64
	lines                               int
}

// A reference is the in-memory bus.
type reference struct{ rate, job sample } // jobs a second, seconds of processor

// brokers measures the brokers of a list and prints their table.
func (b *bench) brokers(ctx context.Context, list string, w io.Writer) error {
	found, err := testserver.FindBrokers(list)
	if err != nil {
		return err
	}
	mem := &reference{}
	mem.rate = sample{name: "in-memory bus, 16 in flight", measure: mem.job.beside(func(ctx context.Context) (float64, float64, error) {
		return b.rateAndCost(ctx, b.memory, 16, false)
	})}
	var all []*figures
	for _, k := range found {
		f := &figures{}
		all = append(all, f)
		if f.v, err = b.open(k); err != nil {
			return err
		}
		defer f.v.close()
		f.through = sample{name: k.Name + " alone: put, get, ack with 16 in flight", measure: f.message.beside(func(ctx context.Context) (float64, float64, error) {
			return f.v.through(ctx, 16)
		})}
		f.rate = sample{name: k.Name + ", 16 in flight", measure: b.rate(f.v.serve, 16, false)}
		f.floor = sample{name: k.Name + ", floor of the latency, s", measure: f.v.floor}
		f.latency = sample{name: k.Name + ", latency p50 with 1 in flight, s", measure: latency(f.v.serve)}
		f.back = sample{name: k.Name + ", s from its return to a job's end", measure: f.v.back}
	}
	take := func(s *sample) error {
		if !strings.Contains(s.name, b.o.only) {
			return nil
		}
		v, err := s.measure(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		s.got = append(s.got, v)
		if b.o.verbose || b.o.only != "" {
			fmt.Fprintf(w, "%-70s %10.5g\n", s.name, v)
		}
		return nil
	}
	for range b.o.repeats {
		if err := take(&mem.rate); err != nil {
			return err
		}
		for _, f := range all {
			for _, s := range []*sample{&f.through, &f.rate, &f.floor, &f.latency, &f.back} {
				if err := take(s); err != nil {
					return err
				}
			}
		}
	}
	if b.o.only != "" {
		return nil
	}
	for _, f := range all {
		if f.idle, f.lines, err = b.idle(ctx, f.v); err != nil {
			return fmt.Errorf("an idle agent on %s: %w", f.v.broker.Name, err)
		}
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "broker\tmeasure\tmeasured\tgoal\t\n")
	for _, f := range all {
		f.write(t, mem)
		if dir := os.Getenv(brokers.Variable); dir != "" {
			seen := brokers.Figures{Throughput: f.share(mem), Limit: f.limit(mem), Latency: f.latency.median() / f.floor.median()}
			if err := seen.Record(dir, f.v.broker.Name); err != nil {
				return fmt.Errorf("noting the figures of %s: %w", f.v.broker.Name, err)
			}
		}
	}
	return t.Flush()
}

// beside has the second result of measure in s, and is the first.
func (s *sample) beside(measure func(context.Context) (first, second float64, err error)) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		v, beside, err := measure(ctx)
		s.got = append(s.got, beside)
		return v, err
	}
}

// share is that of the jobs a second on the in-memory bus.
func (f *figures) share(mem *reference) float64 { return f.rate.median() / mem.rate.median() }

// limit is the largest share there can be, as a job takes two messages and the
// broker works on the same cores.
func (f *figures) limit(mem *reference) float64 {
	return mem.job.median() / (mem.job.median() + 2*f.message.median())
}

func (f *figures) write(w io.Writer, mem *reference) {
	row := func(name string, v, goal float64, atMost bool) {
		sign, met := "at least", v >= goal
		if atMost {
			sign, met = "at most", v <= goal
		}
		verdict := "MISSED"
		if met {
			verdict = "MET"
		}
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%s %.1f\t%s\n", f.v.broker.Name, name, v, sign, goal, verdict)
	}
	name := "jobs/s with 16 in flight, share of the in-memory bus"
	if spare := f.through.median() / mem.rate.median(); spare >= goalSpare {
		row(name, f.share(mem), goalShare, false)
	} else {
		fmt.Fprintf(w, "%s\t%s\t%.2f\t-\tthe broker alone is only %.1f times as fast\n", f.v.broker.Name, name, f.share(mem), spare)
	}
	fmt.Fprintf(w, "%s\tthe most that two messages a job leave of that\t%.2f\t\t\n", f.v.broker.Name, f.limit(mem))
	row("latency p50 with 1 in flight, times the floor", f.latency.median()/f.floor.median(), goalLatency, true)
	row("idle agent with 10 pools, % of a core", f.idle, goalIdle, true)
	row(fmt.Sprintf("from the server's return after %v to a job's end, s", awayFor), f.back.median(), goalBack, true)
	fmt.Fprintf(w, "%s\t%s\t\t\t\n", f.v.broker.Name, fmt.Sprintf("(%.0f jobs/s, in memory %.0f; %.0f messages/s; %.1f ms over a floor of %.1f ms; %d log lines while idle)",
		f.rate.median(), mem.rate.median(), f.through.median(), 1e3*f.latency.median(), 1e3*f.floor.median(), f.lines))
}

// back is how many seconds after the broker serves again a job has ended that was
// waiting to be submitted; 0 where that was noticed before it was seen to serve.
func (v *venue) back(ctx context.Context) (float64, error) {
	s, err := v.serve(ctx, 1)
	if err != nil {
		return 0, err
	}
	defer s.close()
	restart := func() error {
		return testserver.Guard(func() error {
			for _, p := range v.servers {
				p.Start(v.stage)
			}
			return nil
		})
	}
	if len(v.servers) > 0 {
		err = testserver.Guard(func() error {
			for _, p := range v.servers {
				p.Kill(v.stage)
			}
			return nil
		})
	} else {
		syscall.Kill(s.agent, syscall.SIGKILL)
		restart = func() error {
			cmd := exec.Command(s.command[0], s.command[1:]...)
			if err := cmd.Start(); err != nil {
				return err
			}
			s.undo = append(s.undo, func() { end(cmd.Process.Pid); cmd.Wait() })
			return answers(ctx, v.addr)
		}
	}
	if err != nil {
		return 0, err
	}
	ended := make(chan time.Time, 1)
	failed := make(chan error, 1)
	go func() {
		_, err := s.roundTrips(ctx, 1, jobs(1), false)
		ended <- time.Now()
		failed <- err
	}()
	select {
	case <-time.After(awayFor):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := restart(); err != nil {
		return 0, err
	}
	begin := time.Now()
	return max(0, (<-ended).Sub(begin).Seconds()), <-failed
}

// answers waits until somebody listens at addr.
func answers(ctx context.Context, addr string) error {
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}
