package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/internal/faultproxy"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// What every process of a world is told.
const (
	timeLimit = 3 * time.Second // of a command
	waitDelay = 500 * time.Millisecond
	workers   = 4
	backlog   = 40
)

// A world is a host with a broker: pools, an agent for each, one runner.
type world struct {
	*stage
	setup
	dir string // below the stage's

	at      testserver.Place
	servers []*testserver.Process // none: the first agent is the broker
	toAgent []*faultproxy.Proxy   // between servers and agents; none where they connect directly
	toUser  []*faultproxy.Proxy   // between servers and clients
	pools   []*pool
}

// A pool is one with its agent.
type pool struct {
	w       *world
	name    string
	dir     string
	truth   string
	journal string // directory
	small   bool   // the journal lies on a small file system
	file    string // configuration of the agent
	user    string // and of clients
	canary  string

	mu     sync.Mutex
	agent  *process // nil: none runs
	frozen bool
}

// A setup is how a world is made.
type setup struct {
	broker testserver.Broker
	progs  programs
	rec    *record
	pools  int
	keys   map[string]any               // of the configuration, in place of the usual ones
	sim    func(p *pool) cbsdsim.Config // what commands do
	small  bool                         // the first pool's journal has a small disk of its own
}

// newWorld makes the pools of a broker and starts everything.
func newWorld(s *stage, o setup) (*world, error) {
	b := o.broker
	w := &world{stage: s, setup: o, dir: filepath.Join(s.dir, b.Name)}
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return nil, fmt.Errorf("making a world: %w", err)
	}
	w.at = testserver.Place{Dir: w.dir, Cbsdmq: o.progs.cbsdmq}
	agentAddr, userAddr := w.reach()
	for i := range o.pools {
		p := &pool{w: w, name: fmt.Sprintf("%s%d", strings.ReplaceAll(b.Name, "-", "_"), i+1)}
		w.pools = append(w.pools, p)
		if err := p.make(agentAddr, userAddr, i == 0 && o.small); err != nil {
			return nil, fmt.Errorf("making pool %s: %w", p.name, err)
		}
	}
	s.Cleanup(w.end)
	for _, p := range w.pools {
		if err := p.start(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// reach starts the broker with proxies before it, and returns how agents and
// clients reach it.
func (w *world) reach() (agents, clients string) {
	var told [2]string
	at := w.at
	at.Via = func(who testserver.Who, listen string) string {
		p := faultproxy.Start(w.stage, listen)
		if told[who] = p.Addr(); who == testserver.Agents {
			w.toAgent = []*faultproxy.Proxy{p}
		} else {
			w.toUser = []*faultproxy.Proxy{p}
		}
		return p.Addr()
	}
	agents, w.servers = w.broker.Run(w.stage, at)
	if w.toUser != nil {
		return told[testserver.Agents], told[testserver.Clients]
	}
	w.toUser, clients = proxies(w.stage, agents)
	if !w.broker.Direct {
		w.toAgent, agents = proxies(w.stage, agents)
	}
	return agents, clients
}

// proxies starts a proxy to each of the addresses.
func proxies(s *stage, addrs string) (ps []*faultproxy.Proxy, through string) {
	var all []string
	for addr := range strings.SplitSeq(addrs, ",") {
		p := faultproxy.Start(s, addr)
		ps, all = append(ps, p), append(all, p.Addr())
	}
	return ps, strings.Join(all, ",")
}

func (w *world) runDir() string { return filepath.Join(w.dir, "state", "run") }

// runner is the pid of the runner, 0 where none runs.
func (w *world) runner() int {
	text, err := os.ReadFile(filepath.Join(w.runDir(), "runner-1.lock"))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(text))
	if len(f) == 0 {
		return 0
	}
	pid, err := strconv.Atoi(f[0])
	// The file stays when the runner is gone: another process may have the pid.
	if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || !strings.Contains(string(line), w.runDir()) {
		return 0
	}
	return pid
}

// end ends all processes of the world.
func (w *world) end() {
	for _, p := range w.pools {
		p.mu.Lock()
		if p.agent != nil {
			p.agent.kill()
		}
		p.mu.Unlock()
	}
	if pid := w.runner(); pid > 0 {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, p := range w.pools {
		for _, c := range p.atWork() {
			syscall.Kill(c.PID, syscall.SIGKILL)
		}
	}
}

// Guests of a pool, by what their commands do.
var guests = struct{ plain, fails, lies, slow, stuck, talks []string }{
	plain: []string{"g0", "g1", "g2", "g3"},
	fails: []string{"gfail"}, lies: []string{"glie"}, slow: []string{"gslow"}, stuck: []string{"gstuck"}, talks: []string{"gtalk"},
}

func allGuests() (names []string) {
	for _, list := range [][]string{guests.plain, guests.fails, guests.lies, guests.slow, guests.stuck, guests.talks} {
		names = append(names, list...)
	}
	return names
}

// torturous makes what a command does depend on its guest. They take some time,
// so that they would overlap if they could.
func torturous(p *pool) cbsdsim.Config {
	const talk = 300 << 10
	return cbsdsim.Config{Journal: p.truth, JournalReads: true, Evaluate: true, Canary: p.canary, Commands: map[string]cbsdsim.Behaviour{
		"bset":        {Delay: 0.03, OutputOfJob: true, OutputBytes: 16 << 10},
		"bset g1":     {OutputOfJob: true, OutputBytes: 1 << 10, Delay: 0.15},
		"bset gfail":  {Exit: new(3), OutputOfJob: true, OutputBytes: 4 << 10, Stderr: "no\n"},
		"bset glie":   {Exit: new(0)},
		"bset gslow":  {Delay: 1},
		"bset gstuck": {Delay: 2 * timeLimit.Seconds()},
		"bset gtalk":  {OutputOfJob: true, OutputBytes: talk, Delay: 0.1},
		"bget":        {OutputOfJob: true, OutputBytes: 32 << 10},
		"bget gtalk":  {OutputOfJob: true, OutputBytes: talk},
	}}
}

// make makes the pool's workdir and its files.
func (p *pool) make(agentAddr, userAddr string, small bool) error {
	p.dir = filepath.Join(p.w.dir, p.name)
	p.truth = filepath.Join(p.w.dir, p.name+".truth")
	p.journal = filepath.Join(p.w.dir, p.name+".journal")
	p.canary = filepath.Join(p.w.dir, p.name+".canary")
	if err := cbsdsim.Init(p.dir, "torture.local"); err != nil {
		return err
	}
	for _, guest := range allGuests() {
		args := []string{"bcreate", "jname=" + guest, "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_cpus=1", "vm_ram=64m"}
		var out strings.Builder
		if code := cbsdsim.Main(args, []string{"workdir=" + p.dir, "NOINTER=1", "NOCOLOR=1"}, &out, &out); code != 0 {
			return fmt.Errorf("bcreate ended with %d: %s", code, out.String())
		}
	}
	if err := p.w.sim(p).Write(p.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(p.journal, 0o700); err != nil {
		return err
	}
	if small {
		if err := p.w.mountSmall(p.journal); err != nil {
			p.w.note("no small disk under the journal of %s: %v", p.name, err)
		} else {
			p.small = true
		}
	}
	b := p.w.broker
	common := map[string]any{
		"cbsdenv": p.dir, "pool": p.name, "cbsd": p.w.progs.cbsd, "logfile": filepath.Join(p.w.dir, p.name+".log"),
		"state_dir": filepath.Join(p.w.dir, "state"), "journal": filepath.Join(p.journal, "journal.sqlite"),
		"workers": workers, "readers": 2, "backlog": backlog, "kill_grace": "1s",
		"time_limit": timeLimit.String(), "foreign_wait": "10s", "broker": b.Section,
	}
	for name, addr := range map[string]string{"agent": agentAddr, "user": userAddr} {
		keys := maps.Clone(common)
		section := b.Keys(addr, p.w.at)
		section["publish_timeout"], section["reserve_timeout"], section["reconnect_timeout"] = 2, 1, 1
		keys[b.Section] = section
		maps.Copy(keys, p.w.keys)
		text, err := json.MarshalIndent(keys, "", "  ")
		if err != nil {
			return err
		}
		file := filepath.Join(p.w.dir, p.name+"."+name+".json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return err
		}
		if name == "agent" {
			p.file = file
		} else {
			p.user = file
		}
	}
	return nil
}

// start starts the pool's agent.
func (p *pool) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.startLocked()
}

func (p *pool) startLocked() error {
	if p.agent != nil && !p.agent.gone() {
		return nil
	}
	if p.agent != nil {
		p.look()
	}
	var err error
	p.agent, err = p.w.stage.start(p.w.progs.cbsdmq, "agent", "--config", p.file)
	p.frozen = false
	return err
}

// look notes what a program says that ends by a fault of its own.
func (p *pool) look() {
	said := p.agent.stderr.String()
	if said != "" {
		p.w.note("agent of %s said: %s", p.name, said)
	}
	if strings.Contains(said, "panic:") || strings.Contains(said, "fatal error:") {
		p.w.rec.found(fmt.Sprintf("the agent of %s crashed: %.2000s", p.name, said))
	}
}

// keepUp starts the agent again whenever it ends by itself, as a service
// manager does.
func (p *pool) keepUp(ctx context.Context) {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		p.mu.Lock()
		if p.agent != nil && p.agent.gone() {
			p.w.note("agent of %s ended by itself: %v", p.name, p.agent.cmd.ProcessState)
			p.w.agentLost()
			if err := p.startLocked(); err != nil {
				p.w.note("agent of %s: %v", p.name, err)
			}
		}
		p.mu.Unlock()
	}
}

// open opens the broker as a client does.
func (p *pool) open(ctx context.Context) (*bus.Bus, config.Section, io.Closer, error) {
	cfg, _, err := config.Load(p.user)
	if err != nil {
		return nil, config.Section{}, nil, err
	}
	s := cfg.Buses()[0]
	b, closer, err := (&all.Opener{ClientOnly: true}).Open(ctx, s.Kind, s.Config)
	return b, s, closer, err
}

// session opens a client; it tries until ctx ends.
func (p *pool) session(ctx context.Context, sender string) (*client.Client, func(), error) {
	b, s, closer, err := p.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	for {
		c, err := client.Open(ctx, client.Options{
			Bus: b, Pool: p.name, Tube: s.Tube, ReplyPrefix: s.ReplyTubePrefix, Sender: sender,
			ConnectTimeout: 5 * time.Second, RequestTimeout: 4 * time.Second, AcceptTimeout: -1,
		})
		if err == nil {
			return c, func() { c.Close(); closer.Close() }, nil
		}
		if !wait(ctx, 100*time.Millisecond) {
			return nil, nil, errors.Join(err, closer.Close())
		}
	}
}

// wait lets d pass. It is false when ctx ends before.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// between is a random time.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)+1))
}
