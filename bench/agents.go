package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq/agent"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/bus/mem"
	"github.com/cbsd/cbsdmq/cbsd"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/proc"
	"github.com/cbsd/cbsdmq/journal"
	"github.com/cbsd/cbsdmq/runner"
)

const command = "/bin/true" // in place of cbsd

// A bench is one run of the program.
type bench struct {
	o      options
	dir    string
	binary string // of cbsdmq
	n      int
}

// A service is a pool that is served, as its client sees it.
type service struct {
	pool    string
	bus     *bus.Bus
	tube    string
	reply   string
	agent   int      // pid, 0 = this process
	command []string // of the agent
	run     int      // pid of the runner
	log     string
	open    func(context.Context) (*bus.Bus, io.Closer, error) // for one more client
	undo    []func()
}

func (s *service) close() {
	for _, v := range slices.Backward(s.undo) {
		v()
	}
}

// workers are enough for what is in flight, as an operator would set them.
func workers(inFlight int) int { return max(16, inFlight) }

// guests is how many VMs a pool has.
const guests = 48

// pool makes a fresh simulated pool with guests below the bench's directory.
func (b *bench) pool() (dir string, err error) {
	b.n++
	dir = filepath.Join(b.dir, fmt.Sprintf("pool%d", b.n))
	if err := cbsdsim.Init(dir, "bench.local"); err != nil {
		return "", err
	}
	for i := range guests {
		args := []string{"bcreate", fmt.Sprintf("jname=guest%d", i), "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_cpus=1", "vm_ram=64m"}
		var out strings.Builder
		if code := cbsdsim.Main(args, []string{"workdir=" + dir, "NOINTER=1", "NOCOLOR=1"}, &out, &out); code != 0 {
			return "", fmt.Errorf("bcreate: exit status %d: %s", code, out.String())
		}
	}
	return dir, nil
}

// memory serves a pool in this process, on the in-memory bus. The runner is a
// process of its own, as always.
func (b *bench) memory(ctx context.Context, inFlight int) (_ *service, err error) {
	agent.Tune()
	s := &service{pool: "bench", tube: "jobs", reply: "reply"}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	dir, err := b.pool()
	if err != nil {
		return nil, err
	}
	runDir := filepath.Join(dir, "run")
	pool, err := cbsd.Open(ctx, cbsd.Config{CBSD: command, Workdir: dir, RunDir: runDir})
	if err != nil {
		return nil, err
	}
	s.undo = append(s.undo, func() { pool.Close() })
	boot, err := proc.BootID()
	if err != nil {
		return nil, err
	}
	j, err := journal.Open(ctx, journal.Options{
		Path: filepath.Join(dir, "journal", "journal.sqlite"), State: filepath.Join(dir, "state"), Host: "bench", Boot: boot,
	})
	if err != nil {
		return nil, err
	}
	s.undo = append(s.undo, func() { j.Close() })
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	broker := mem.New(mem.Options{})
	s.bus = bus.New(broker.Driver(), bus.Options{})
	server := agent.New(agent.Config{
		Pool: s.pool, Host: "bench", Boot: boot, Command: command, Journal: j, CBSD: pool,
		Endpoints: []agent.Endpoint{{Name: "mem", Bus: s.bus, Tube: s.tube, Prefix: s.reply, Timeout: 5 * time.Second}},
		Dial: func(ctx context.Context) (agent.Runner, error) {
			r, err := runner.Ensure(ctx, runner.Config{Dir: runDir}, exe, []string{"-runner", runDir})
			if err == nil {
				s.run = r.PID()
			}
			return r, err
		},
		RunDir: runDir, ForeignWait: time.Minute,
		Workers: workers(inFlight), Readers: workers(inFlight), Backlog: 1000, ReplyTTL: time.Hour,
		Limits: journal.Limits{Results: time.Hour, IDs: 24 * time.Hour}, Log: quiet,
	})
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- server.Serve(serving) }()
	s.undo = append(s.undo, func() {
		cancel()
		if err := <-done; err != nil {
			fmt.Fprintln(os.Stderr, "bench: the agent:", err)
		}
		s.bus.Close()
		end(s.run)
	})
	return s, nil
}

// serve starts `cbsdmq agent` for n pools and waits until it answers. The
// service is the first of them.
func (b *bench) serve(ctx context.Context, inFlight, n int, with map[string]any) (_ *service, err error) {
	s := &service{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	b.n++
	state := filepath.Join(b.dir, fmt.Sprintf("state%d", b.n))
	s.log = state + ".log"
	var configs []string
	for range n {
		dir, err := b.pool()
		if err != nil {
			return nil, err
		}
		file := map[string]any{
			"cbsdenv": dir, "cbsd": command, "logfile": s.log, "state_dir": state,
			"workers": workers(inFlight), "readers": workers(inFlight),
		}
		maps.Copy(file, with)
		text, err := json.Marshal(file)
		if err != nil {
			return nil, err
		}
		name := dir + ".json"
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return nil, err
		}
		configs = append(configs, "--config", name)
	}
	s.command = append([]string{b.binary, "agent"}, configs...)
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s.agent = cmd.Process.Pid
	s.undo = append(s.undo, func() { end(s.run) }, func() { end(s.agent); cmd.Wait() })
	return s, b.connect(ctx, s, configs[1])
}

// connect opens the pool of a configuration file as a client, and waits for its
// agent.
func (b *bench) connect(ctx context.Context, s *service, file string) error {
	cfg, section, err := loadSection(file)
	if err != nil {
		return err
	}
	s.pool, s.tube, s.reply = cfg.Pool, section.Tube, section.ReplyTubePrefix
	opener := &all.Opener{ClientOnly: true, Log: quiet}
	s.open = func(ctx context.Context) (*bus.Bus, io.Closer, error) {
		return opener.Open(ctx, section.Kind, section.Config)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		b, closer, err := s.reach(ctx)
		if err == nil {
			s.bus, s.undo = b, append(s.undo, func() { closer.Close() })
			break
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := s.roundTrips(ctx, 1, jobs(1), false); err != nil {
		return fmt.Errorf("the first job: %w", err)
	}
	r, err := runner.Dial(ctx, runner.Config{Dir: cfg.RunDir})
	if err != nil {
		return err
	}
	defer r.Close()
	s.run = r.PID()
	return nil
}

// reach is open, if the broker answers.
func (s *service) reach(ctx context.Context) (*bus.Bus, io.Closer, error) {
	b, closer, err := s.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, err := b.Inspect(ctx, bus.Tube{Name: s.tube}); err != nil {
		closer.Close()
		return nil, nil, err
	}
	return b, closer, nil
}

// served waits until the broker answers a new client: servers of a cluster accept
// connections before they have elected who leads them.
func (s *service) served(ctx context.Context) error {
	const attempt = 200 * time.Millisecond
	for {
		within, cancel := context.WithTimeout(ctx, attempt)
		_, closer, err := s.reach(within)
		cancel()
		if err == nil {
			return closer.Close()
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func end(pid int) {
	if pid > 0 {
		syscall.Kill(pid, syscall.SIGTERM)
		for range 100 {
			if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// memoryOf is the resident memory of a process in bytes, from Linux's
// /proc/PID/statm.
func memoryOf(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	pages, err := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
