package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/config"
)

// raw is how many times a second four workers start and wait for the command.
func (b *bench) raw(ctx context.Context) (float64, error) {
	var wg sync.WaitGroup
	counts := make([]int, 4)
	errs := make([]error, 4)
	begin := time.Now()
	for i := range counts {
		wg.Go(func() {
			for time.Since(begin) < b.o.length && errs[i] == nil {
				errs[i] = forkExec()
				counts[i]++
			}
		})
	}
	wg.Wait()
	n := 0
	for i, c := range counts {
		n += c
		if errs[i] != nil {
			return 0, errs[i]
		}
	}
	return float64(n) / time.Since(begin).Seconds(), ctx.Err()
}

func forkExec() error {
	pid, err := syscall.ForkExec(command, []string{command}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	if err != nil {
		return err
	}
	_, err = syscall.Wait4(pid, nil, 0, nil)
	return err
}

// rate is jobs per second end to end. With named each job names a guest of its own
// and changes it, so that the state is read before and after.
func (b *bench) rate(serve func(context.Context, int) (*service, error), inFlight int, named bool) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		s, err := serve(ctx, inFlight)
		if err != nil {
			return 0, err
		}
		defer s.close()
		if _, err := s.roundTrips(ctx, inFlight, jobs(200), named); err != nil { // warm up
			return 0, err
		}
		before, begin := s.spent(), time.Now()
		done, err := s.roundTrips(ctx, inFlight, func(int) bool { return time.Since(begin) < b.o.length }, named)
		if err != nil {
			return 0, err
		}
		took, spent := time.Since(begin), s.spent().minus(before)
		if b.o.verbose {
			fmt.Fprintf(b.o.out, "%-70s %s\n", "", spent.per(len(done)))
		}
		return float64(len(done)) / took.Seconds(), nil
	}
}

// A bill is the processor time that each part of a service took, that the whole
// machine took, and that it had left.
type bill struct{ client, agent, runner, commands, all, idle time.Duration }

func (s *service) spent() bill {
	runner, commands := cpuOf(s.run)
	agent, _ := cpuOf(s.agent)
	client, _ := cpuOf(os.Getpid())
	all, idle := cpuOfAll()
	return bill{client, agent, runner, commands, all, idle}
}

func (b bill) minus(a bill) bill {
	return bill{b.client - a.client, b.agent - a.agent, b.runner - a.runner, b.commands - a.commands, b.all - a.all, b.idle - a.idle}
}

// per says what a job took; with the in-memory bus the client's share is the
// agent's too. What is more in all is the broker's, and the kernel's.
func (b bill) per(n int) string {
	us := func(d time.Duration) int64 { return d.Microseconds() / int64(n) }
	return fmt.Sprintf("us of processor a job: client %d, agent %d, runner %d, command %d; all %d, idle %d",
		us(b.client), us(b.agent), us(b.runner), us(b.commands), us(b.all), us(b.idle))
}

// latency is the median time in seconds of a job when it is the only one.
func latency(serve func(context.Context, int) (*service, error)) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		s, err := serve(ctx, 1)
		if err != nil {
			return 0, err
		}
		defer s.close()
		if _, err := s.roundTrips(ctx, 1, jobs(50), false); err != nil {
			return 0, err
		}
		took, err := s.roundTrips(ctx, 1, jobs(latencyJobs), false)
		if err != nil {
			return 0, err
		}
		return took[len(took)/2].Seconds(), nil
	}
}

// jobs is for roundTrips: as many as n.
func jobs(n int) func(int) bool { return func(put int) bool { return put < n } }

// roundTrips puts jobs with so many in flight as long as more says so, given how
// many there were, and returns how long each took, sorted. The client puts and
// reads in batches, as large as they come.
func (s *service) roundTrips(ctx context.Context, inFlight int, more func(put int) bool, named bool) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	number := 1<<52 + rand.Uint64N(1<<52)
	box := bus.Tube{Name: bus.MailboxName(s.reply, number), Kind: bus.Mailbox}
	c, err := s.bus.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{box}})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	sent := make(map[string]time.Time, inFlight)
	var took []time.Duration
	for put := 0; ; {
		var ms []bus.Message
		for ; len(sent) < inFlight && more(put); put++ {
			job := cbsdmq.Job{Command: "jls", JobID: number, Meta: &cbsdmq.Meta{V: cbsdmq.MetaVersion, ID: ulid.Make().String()}}
			if named {
				job.Command, job.Args = "bstop", []cbsdmq.Arg{{Name: "jname", Value: "guest" + strconv.Itoa(put%guests)}}
			}
			body, err := json.Marshal(job)
			if err != nil {
				return nil, err
			}
			ms = append(ms, bus.Message{Tube: bus.Tube{Name: s.tube}, Body: body})
			sent[cbsdmq.PrintedID(s.pool, job.Meta.ID)] = time.Now()
		}
		if len(sent) == 0 {
			slices.Sort(took)
			return took, nil
		}
		for _, r := range s.bus.Put(ctx, ms...) {
			if r.Err != nil {
				return nil, r.Err
			}
		}
		ds, err := c.Receive(ctx, inFlight)
		if err != nil {
			return nil, fmt.Errorf("after %d of %d jobs: %w", len(took), put, err)
		}
		for _, d := range ds {
			r, err := cbsdmq.ParseReply(d.Body)
			if err != nil {
				return nil, err
			}
			if r.State != cbsdmq.Done {
				return nil, fmt.Errorf("a job ended %s: %s", r.State, r.Reason)
			}
			if at, ok := sent[r.ID]; ok {
				took = append(took, time.Since(at))
				delete(sent, r.ID)
			}
		}
		if err := c.Ack(ctx, ds...); err != nil {
			return nil, err
		}
	}
}

// natsAlone is how many messages a second go through the embedded broker there
// and back with 16 in flight, while each batch is written and synced twice as
// the journal does.
func (b *bench) natsAlone(ctx context.Context) (float64, error) {
	s, err := b.on("embedded")(ctx, 16)
	if err != nil {
		return 0, err
	}
	defer s.close()
	there, back := bus.Tube{Name: "alone"}, bus.Tube{Name: "alone_reply1", Kind: bus.Mailbox}
	in, err := s.bus.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{there}})
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := s.bus.Consume(ctx, bus.ConsumeOptions{Tubes: []bus.Tube{back}})
	if err != nil {
		return 0, err
	}
	defer out.Close()
	f, err := os.Create(filepath.Join(b.dir, "alone"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, fail := context.WithCancelCause(ctx)
	go func() { fail(echo(ctx, s.bus, in, back, f)) }() // the agent's part
	n, flying, begin := 0, 0, time.Now()
	for time.Since(begin) < b.o.length {
		var ms []bus.Message
		for ; flying < 16; flying++ {
			ms = append(ms, bus.Message{Tube: there, Body: make([]byte, 300)})
		}
		for _, r := range s.bus.Put(ctx, ms...) {
			if r.Err != nil {
				return 0, r.Err
			}
		}
		ds, err := out.Receive(ctx, 16)
		if err != nil {
			return 0, context.Cause(ctx)
		}
		if err := out.Ack(ctx, ds...); err != nil {
			return 0, err
		}
		n += len(ds)
		flying -= len(ds)
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

// echo sends each message that comes in back, after two synced writes.
func echo(ctx context.Context, b *bus.Bus, in bus.Consumer, back bus.Tube, f *os.File) error {
	for {
		ds, err := in.Receive(ctx, 64)
		if err != nil {
			return err
		}
		ms := make([]bus.Message, len(ds))
		for i := range ds {
			ms[i] = bus.Message{Tube: back, Body: ds[i].Body, TTL: time.Hour}
		}
		for range 2 {
			if _, err := f.WriteAt(make([]byte, 300*len(ds)), 0); err != nil {
				return err
			}
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if err := in.Ack(ctx, ds...); err != nil {
			return err
		}
		for _, r := range b.Put(ctx, ms...) {
			if r.Err != nil {
				return r.Err
			}
		}
	}
}

// footprint is the memory of agent and runner in MB.
func (s *service) footprint() (float64, error) {
	a, err := memoryOf(s.agent)
	if err != nil {
		return 0, err
	}
	r, err := memoryOf(s.run)
	return float64(a+r) / (1 << 20), err
}

// bigOutput is by how much memory grows over a job that prints 50 MB. The
// command is a script in place of /bin/true.
func (b *bench) bigOutput(ctx context.Context) (float64, error) {
	s, err := b.on("beanstalkd-nobinlog")(ctx, 1)
	if err != nil {
		return 0, err
	}
	defer s.close()
	if _, err := s.roundTrips(ctx, 16, jobs(1000), false); err != nil {
		return 0, err
	}
	before, err := s.footprint()
	if err != nil {
		return 0, err
	}
	big := filepath.Join(b.dir, "big")
	if err := os.WriteFile(big, []byte("#!/bin/sh\nhead -c 52428800 /dev/zero | tr '\\0' x\n"), 0o700); err != nil {
		return 0, err
	}
	// The file of the pool that is served now is the newest.
	file := filepath.Join(b.dir, fmt.Sprintf("pool%d.json", b.n))
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), command, big, 1)), 0o600); err != nil {
		return 0, err
	}
	if err := syscall.Kill(s.agent, syscall.SIGHUP); err != nil {
		return 0, err
	}
	time.Sleep(time.Second) // it reads the file again; until then the job would print nothing
	if _, err := s.roundTrips(ctx, 1, jobs(1), false); err != nil {
		return 0, err
	}
	after, err := s.footprint()
	return after - before, err
}

// idle is the share in percent of a core that an agent with ten pools takes
// when nothing happens, and how many lines it logs meanwhile.
func (b *bench) idle(ctx context.Context, v *venue) (core float64, lines int, err error) {
	s, err := b.serve(ctx, 1, 10, v.with())
	if err != nil {
		return 0, 0, err
	}
	defer s.close()
	const length = 10 * time.Second
	time.Sleep(time.Second)
	lines0, before := logLines(s.log), s.spent()
	select {
	case <-time.After(length):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	cpu := s.spent().minus(before)
	return 100 * (cpu.agent + cpu.runner).Seconds() / length.Seconds(), logLines(s.log) - lines0, nil
}

func logLines(file string) int {
	b, _ := os.ReadFile(file)
	return strings.Count(string(b), "\n")
}

// tick is the unit of Linux's /proc/stat and /proc/PID/stat.
const tick = 10 * time.Millisecond

func ticks(field string) time.Duration {
	n, _ := strconv.Atoi(field)
	return time.Duration(n) * tick
}

// cpuOf is the processor time of a process and of its children that have ended,
// from Linux's /proc/PID/stat.
func cpuOf(pid int) (own, children time.Duration) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	return ticks(f[11]) + ticks(f[12]), ticks(f[13]) + ticks(f[14])
}

// cpuOfAll is the processor time of the machine, from the first line of Linux's
// /proc/stat.
func cpuOfAll() (busy, idle time.Duration) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line)[1:9] {
		if i == 3 || i == 4 { // idle, iowait
			idle += ticks(f)
		} else {
			busy += ticks(f)
		}
	}
	return busy, idle
}

// growth is by how many MB agent and runner grow from 1,000 to 200,000 jobs.
func (b *bench) growth(ctx context.Context) (float64, error) {
	s, err := b.on("beanstalkd-nobinlog")(ctx, 64)
	if err != nil {
		return 0, err
	}
	defer s.close()
	if _, err := s.roundTrips(ctx, 64, jobs(1000), false); err != nil {
		return 0, err
	}
	before, err := s.footprint()
	if err != nil {
		return 0, err
	}
	for range 199 {
		if _, err := s.roundTrips(ctx, 64, jobs(1000), false); err != nil {
			return 0, err
		}
	}
	after, err := s.footprint()
	return after - before, err
}

func loadSection(file string) (*config.Config, config.Section, error) {
	cfg, _, err := config.Load(file)
	if err != nil {
		return nil, config.Section{}, err
	}
	return cfg, cfg.Buses()[0], nil
}
