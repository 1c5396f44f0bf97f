package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
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
	through, rate, floor, latency, back *sample
	idle                                float64
	lines                               int
}

// brokers measures the brokers of a list and prints their table.
func (b *bench) brokers(ctx context.Context, list string, w io.Writer) error {
	found, err := testserver.FindBrokers(list)
	if err != nil {
		return err
	}
	mem := &sample{name: "in-memory bus, 16 in flight", measure: b.rate(b.memory, 16, false)}
	samples, backs := []*sample{mem}, []*sample{}
	var all []*figures
	for _, k := range found {
		v, err := b.open(k)
		if err != nil {
			return err
		}
		defer v.close()
		if k.Java {
			if err := v.warm(ctx); err != nil {
				return fmt.Errorf("warming %s up: %w", k.Name, err)
			}
		}
		f := &figures{
			v:       v,
			through: &sample{name: k.Name + " alone: put, get, ack with 16 in flight", measure: func(ctx context.Context) (float64, error) { return v.through(ctx, 16, b.o.length) }},
			rate:    &sample{name: k.Name + ", 16 in flight", measure: b.rate(v.serve, 16, false)},
			floor:   &sample{name: k.Name + ", floor of the latency, s", measure: v.floor},
			latency: &sample{name: k.Name + ", latency p50 with 1 in flight, s", measure: latency(v.serve)},
			back:    &sample{name: k.Name + ", s from its return to a job's end", measure: v.back},
		}
		all, samples = append(all, f), append(samples, f.through, f.rate)
		if !b.o.shared {
			samples, backs = append(samples, f.floor, f.latency), append(backs, f.back)
		}
	}
	// Last of all what kills servers: those in Java would have to be warmed up again.
	for _, part := range [][]*sample{samples, backs} {
		if err := b.take(ctx, part, w); err != nil {
			return err
		}
	}
	if b.o.only != "" {
		return nil
	}
	if !b.o.shared {
		for _, f := range all {
			if f.idle, f.lines, err = b.idle(ctx, f.v); err != nil {
				return fmt.Errorf("an idle agent on %s: %w", f.v.broker.Name, err)
			}
		}
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "broker\tmeasure\tmeasured\tgoal\t\n")
	for _, f := range all {
		seen := f.write(t, mem.median(), b.o)
		if dir := os.Getenv(brokers.Variable); dir != "" {
			if err := seen.Record(dir, f.v.broker.Name); err != nil {
				return fmt.Errorf("noting the figures of %s: %w", f.v.broker.Name, err)
			}
		}
	}
	return t.Flush()
}

// take measures samples in turn, as often as was asked for.
func (b *bench) take(ctx context.Context, samples []*sample, w io.Writer) error {
	samples = slices.DeleteFunc(samples, func(s *sample) bool { return !strings.Contains(s.name, b.o.only) })
	for range b.o.repeats {
		for _, s := range samples {
			v, err := s.measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			s.got = append(s.got, v)
			if b.o.verbose || b.o.only != "" {
				fmt.Fprintf(w, "%-70s %10.5g\n", s.name, v)
			}
		}
	}
	return nil
}

// write prints the rows of one broker, given the jobs a second on the in-memory
// bus, and returns what the table of all brokers has of them.
func (f *figures) write(w io.Writer, mem float64, o options) (seen brokers.Figures) {
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
	note := func(format string, args ...any) {
		fmt.Fprintf(w, "%s\t(%s)\t\t\t\n", f.v.broker.Name, fmt.Sprintf(format, args...))
	}
	const name = "jobs/s with 16 in flight, share of the in-memory bus"
	share, spare := f.rate.median()/mem, f.through.median()/mem
	switch {
	case o.apart == "" && len(f.v.servers) > 0:
		seen.Shared = share
		fmt.Fprintf(w, "%s\t%s\t%.2f\t-\tall on the same processors\n", f.v.broker.Name, name, share)
	case spare < goalSpare:
		seen.Throughput = share
		fmt.Fprintf(w, "%s\t%s\t%.2f\t-\tthe broker alone is only %.1f times as fast\n", f.v.broker.Name, name, share, spare)
	default:
		seen.Throughput = share
		row(name, share, goalShare, false)
	}
	note("%.0f jobs/s, in memory %.0f; %.0f messages/s", f.rate.median(), mem, f.through.median())
	if o.shared {
		return seen
	}
	seen.Latency = f.latency.median() / f.floor.median()
	row("latency p50 with 1 in flight, times the floor", seen.Latency, goalLatency, true)
	row("idle agent with 10 pools, % of a core", f.idle, goalIdle, true)
	row(fmt.Sprintf("from the server's answering again after %v to a job's end, s", awayFor), f.back.median(), goalBack, true)
	note("%.1f ms over a floor of %.1f ms; %d log lines while idle", 1e3*f.latency.median(), 1e3*f.floor.median(), f.lines)
	return seen
}

// back is how many seconds after the broker answers again a job has ended that was
// waiting to be submitted; 0 where that was noticed before it was seen to answer.
func (v *venue) back(ctx context.Context) (float64, error) {
	s, err := v.serve(ctx, 1)
	if err != nil {
		return 0, err
	}
	defer s.close()
	restart := func() error {
		err := testserver.Guard(func() error { testserver.StartAll(v.stage, v.servers); return nil })
		if err != nil {
			return err
		}
		return s.served(ctx)
	}
	if len(v.servers) > 0 {
		err = testserver.Guard(func() error { testserver.KillAll(v.stage, v.servers); return nil })
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
