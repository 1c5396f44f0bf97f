package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A soak is many jobs at a bounded rate, with nothing in their way. What is
// looked at is whether anything grows with their number.
type soak struct {
	options
	jobs     int
	rate     float64
	cbsd     string
	svg, csv string

	w        *world
	begun    time.Time
	mu       sync.Mutex
	open     map[string]struct{} // jobs that are not answered
	again    map[string]struct{} // jobs that were submitted more than once
	answered int
	states   map[cbsdmq.State]int
	reasons  map[cbsdmq.State]string // of the last job that ended so and gave one
	strange  int                     // final replies too many, or of no job
	samples  []sample
}

// A sample is what there was at one time.
type sample struct {
	Jobs    int              `json:"jobs"` // that were answered
	Seconds float64          `json:"seconds"`
	Values  map[string]int64 `json:"values"` // by the names of gauges
}

// soakMemory is how long results and ids are kept in a soak, and soakForgets
// when the journal no longer grows at the latest: ids of clocks that are ahead by
// soakMemory stay as much longer, twice over, and what may go goes within two minutes.
const (
	soakMemory  = time.Minute
	soakForgets = 3*soakMemory + 2*time.Minute
)

// soakFlight is how many jobs may be unanswered at one time, soakWorkers how
// many of them run.
const (
	soakFlight  = 300
	soakWorkers = 16
)

func runSoak(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s := &soak{open: make(map[string]struct{}), again: make(map[string]struct{}), states: make(map[cbsdmq.State]int), reasons: make(map[cbsdmq.State]string)}
	fs := flag.NewFlagSet("cbsdmq-torture soak", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&s.jobs, "jobs", 20_000, "how many")
	fs.Float64Var(&s.rate, "rate", 60, "jobs a second, at most")
	fs.StringVar(&s.list, "broker", "beanstalkd", "one of "+testserver.BrokerNames())
	fs.StringVar(&s.cbsd, "cbsd", "", "command in the place of cbsd, such as /bin/true; default: the simulator")
	fs.StringVar(&s.svg, "svg", "", "`file` for the graph")
	fs.StringVar(&s.csv, "csv", "", "`file` for the numbers")
	common(fs, &s.options)
	if fs.Parse(args) != nil || fs.NArg() > 0 {
		return troubled
	}
	var err error
	if s.brokers, err = testserver.FindBrokers(s.list); err == nil && len(s.brokers) != 1 {
		err = errors.New("a soak has one broker")
	}
	if err == nil {
		err = s.prepare()
	}
	if err != nil {
		say(stderr, "cbsdmq-torture: %v", err)
		return troubled
	}
	defer os.RemoveAll(filepath.Join(s.dir, "bin"))
	st, err := newStage(filepath.Join(s.dir, "soak"))
	if err != nil {
		say(stderr, "cbsdmq-torture: %v", err)
		return troubled
	}
	keep := true
	defer func() { st.close(keep); os.Remove(s.dir) }()
	var bad []string
	err = testserver.Guard(func() (err error) { bad, err = s.run(ctx, st, stdout); return err })
	if err != nil {
		say(stderr, "cbsdmq-torture: %v; everything is in %s", err, s.dir)
		return troubled
	}
	if len(bad) > 0 {
		say(stdout, "NOT FLAT: everything is in %s", s.dir)
		return found
	}
	keep = s.keep
	return 0
}

func (s *soak) run(ctx context.Context, st *stage, stdout io.Writer) (bad []string, err error) {
	if s.cbsd != "" {
		s.progs.cbsd = s.cbsd
	}
	s.w, err = newWorld(st, setup{
		broker: s.brokers[0], progs: s.progs, rec: new(record), pools: 1,
		keys: map[string]any{
			"retention": soakMemory.String(), "id_memory": soakMemory.String(), "reply_ttl": soakMemory.String(),
			"backlog": 1000, "workers": soakWorkers, "readers": soakWorkers, "time_limit": "1m",
		},
		sim: func(*pool) cbsdsim.Config {
			return cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"*": {OutputOfJob: true, OutputBytes: 16 << 10}}}
		},
	})
	if err != nil {
		return nil, err
	}
	if err := s.w.warmUp(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute+time.Duration(3*float64(s.jobs)/s.rate*float64(time.Second)))
	defer cancel()
	s.begun = time.Now()
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	goroutines := s.goroutines()
	bad = s.judge(stdout, goroutines)
	return bad, s.draw()
}

// load puts all jobs on the tube, reads their replies and takes samples.
func (s *soak) load(ctx context.Context) error {
	p := s.w.pools[0]
	rnd := rand.New(rand.NewPCG(1, 2))
	r, done, err := p.raw(times{ctx, ctx, [2]time.Duration{}}, rnd, "s")
	if err != nil {
		return err
	}
	defer done()
	reading, stop := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	const number = 1<<52 + 1
	room := make(chan struct{}, soakFlight)
	background.Go(func() {
		r.read(reading, r.mailbox(number), func(reply cbsdmq.Reply) bool {
			if reply.Final() && s.answer(reply) {
				<-room
			}
			return false
		})
	})
	background.Go(func() {
		every := max(time.Second, time.Duration(float64(s.jobs)/s.rate/400*float64(time.Second)))
		for wait(reading, every) {
			s.sample()
		}
	})
	l := p.workload(rnd, "s")
	pace := time.NewTicker(time.Duration(float64(time.Second) / s.rate))
	defer pace.Stop()
	for n := range s.jobs {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return fmt.Errorf("after %d of %d jobs: %w", n, s.jobs, context.Cause(ctx))
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("after %d of %d jobs, %d answered: %w", n, s.jobs, s.count(), context.Cause(ctx))
		}
		id := freshID(rnd)
		job := s.job(n)
		job.JobID, job.Meta.ID, job.Meta.Pool, job.Meta.Sender = number, id, p.name, l.sender
		body, err := job.MarshalJSON()
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.open[id] = struct{}{}
		s.mu.Unlock()
		if err := s.put(ctx, r.bus, bus.Message{Tube: bus.Tube{Name: r.to.Tube}, Body: body}, id); err != nil {
			return fmt.Errorf("submitting: %w", err)
		}
	}
	patience, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for s.count() < s.jobs {
		if !wait(patience, 50*time.Millisecond) {
			return fmt.Errorf("%d of %d jobs are answered", s.count(), s.jobs)
		}
	}
	s.sample()
	return nil
}

// put submits a job until it is confirmed: whether one that was not is there
// nobody knows, and it is answered once or twice.
func (s *soak) put(ctx context.Context, b *bus.Bus, m bus.Message, id string) error {
	for {
		err := b.Put(ctx, m)[0].Err
		if err == nil || !wait(ctx, time.Second) {
			return err
		}
		s.mu.Lock()
		s.again[id] = struct{}{}
		s.mu.Unlock()
	}
}

// job is a read or a change. What is no cbsd changes nothing: it is asked for
// what is so already.
func (s *soak) job(n int) cbsdmq.Job {
	all := allGuests()
	guest := cbsdmq.Arg{Name: "jname", Value: all[n/2%len(all)]}
	meta := &cbsdmq.Meta{V: cbsdmq.MetaVersion}
	switch {
	case n%2 == 0:
		meta.Words = []string{"vm_ram"}
		return cbsdmq.Job{Command: "bget", Args: []cbsdmq.Arg{guest, {Name: "mode", Value: "quiet"}}, Meta: meta}
	case s.cbsd != "":
		return cbsdmq.Job{Command: "bstop", Args: []cbsdmq.Arg{guest}, Meta: meta}
	}
	return cbsdmq.Job{Command: "bset", Args: []cbsdmq.Arg{guest, {Name: "tags", Value: fmt.Sprintf("s%d", n)}}, Meta: meta}
}

// answer notes a final reply and reports whether it is the first of its job.
func (s *soak) answer(reply cbsdmq.Reply) bool {
	_, id, _ := strings.Cut(reply.ID, "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, waits := s.open[id]; !waits {
		if _, twice := s.again[id]; !twice {
			s.strange++
		}
		return false
	}
	delete(s.open, id)
	s.answered++
	s.states[reply.State]++
	if reply.Reason != "" {
		s.reasons[reply.State] = reply.Reason
	}
	return true
}

func (s *soak) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answered
}

// sample takes one.
func (s *soak) sample() {
	w, p := s.w, s.w.pools[0]
	agent, run := p.agent.pid(), w.runner()
	v := map[string]int64{
		"agent memory": rss(agent), "agent descriptors": descriptors(agent), "agent threads": threads(agent),
		"runner memory": rss(run), "runner descriptors": descriptors(run), "runner threads": threads(run),
	}
	if len(w.servers) > 0 {
		v["broker memory"], v["broker descriptors"] = rss(w.servers[0].PID()), descriptors(w.servers[0].PID())
	}
	journal, _ := usage(p.journal)
	v["journal"] = journal >> 10
	output, files := usage(w.runDir())
	v["runner disk"], v["runner files"] = output>>10, files
	broker, _ := usage(filepath.Join(s.dir, "soak", "tmp1"))
	own, _ := usage(filepath.Join(w.dir, "nats"))
	v["broker disk"] = (broker + own) >> 10
	log, _ := usage(filepath.Join(w.dir, p.name+".log"))
	v["log"] = log >> 10
	s.mu.Lock()
	defer s.mu.Unlock()
	s.samples = append(s.samples, sample{s.answered, time.Since(s.begun).Seconds(), v})
}

// goroutines ends the agent in the way in which a Go program says what its
// goroutines are, and counts them.
func (s *soak) goroutines() int {
	p := s.w.pools[0]
	a := p.take()
	a.signal(syscall.SIGQUIT)
	select {
	case <-a.done:
	case <-time.After(10 * time.Second):
		a.kill()
	}
	return strings.Count(a.stderr.String(), "\ngoroutine ")
}

// draw writes the graph and the numbers.
func (s *soak) draw() error {
	if s.svg != "" {
		title := fmt.Sprintf("%d jobs on %s, %.0f a second", s.jobs, s.list, float64(s.jobs)/s.samples[len(s.samples)-1].Seconds)
		if err := os.WriteFile(s.svg, graph(title, s.samples), 0o644); err != nil {
			return fmt.Errorf("drawing: %w", err)
		}
	}
	if s.csv == "" {
		return nil
	}
	f, err := os.Create(s.csv)
	if err != nil {
		return fmt.Errorf("writing the numbers: %w", err)
	}
	b := bufio.NewWriter(f)
	fmt.Fprint(b, "jobs,seconds")
	for _, g := range gauges {
		fmt.Fprintf(b, ",%s", g.name)
	}
	for _, p := range s.samples {
		fmt.Fprintf(b, "\n%d,%.1f", p.Jobs, p.Seconds)
		for _, g := range gauges {
			fmt.Fprintf(b, ",%d", p.Values[g.name])
		}
	}
	fmt.Fprintln(b)
	return errors.Join(b.Flush(), f.Close())
}

// encode is for -o json.
func (s *soak) encode(w io.Writer, bad []string) {
	last := s.samples[len(s.samples)-1]
	_ = json.NewEncoder(w).Encode(struct {
		Jobs    int                  `json:"jobs"`
		Broker  string               `json:"broker"`
		Seconds float64              `json:"seconds"`
		States  map[cbsdmq.State]int `json:"states"`
		NotFlat []string             `json:"not_flat"`
	}{s.jobs, s.list, last.Seconds, s.states, bad})
}
