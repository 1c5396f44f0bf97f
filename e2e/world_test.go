// Package e2e runs the program itself, with real brokers and the simulated
// cbsd, and breaks it.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/all"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/client"
	"github.com/cbsd/cbsdmq/config"
	"github.com/cbsd/cbsdmq/e2e/judge"
	"github.com/cbsd/cbsdmq/internal/failpoint"
	"github.com/cbsd/cbsdmq/internal/proc"
	"github.com/cbsd/cbsdmq/internal/testserver"
	"github.com/cbsd/cbsdmq/runner"
)

// programs are built once: the product with its failpoints, and the simulator.
var programs struct {
	sync.Once
	dir string
	err error
}

// atOnce is how many tests run at once: they wait more than they compute.
const atOnce = 4

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		flag.Set("test.parallel", strconv.Itoa(max(atOnce, runtime.GOMAXPROCS(0))))
	}
	code := m.Run()
	if programs.dir != "" {
		os.RemoveAll(programs.dir)
	}
	os.Exit(code)
}

func program(t *testing.T, name string) string {
	t.Helper()
	programs.Do(func() {
		if programs.dir, programs.err = os.MkdirTemp("", "cbsdmq-e2e-"); programs.err != nil {
			return
		}
		for _, args := range [][]string{
			{"build", "-tags", "failpoint", "-o", filepath.Join(programs.dir, "cbsdmq"), "../cmd/cbsdmq"},
			{"build", "-o", filepath.Join(programs.dir, "cbsd"), "../cbsd/cbsdsim/cmd/cbsdsim"},
		} {
			cmd := exec.Command("go", args...)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				programs.err = fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
				return
			}
		}
		for _, link := range []string{"bs_router", "bs_router-client"} {
			if programs.err = os.Symlink("cbsdmq", filepath.Join(programs.dir, link)); programs.err != nil {
				return
			}
		}
	})
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return filepath.Join(programs.dir, name)
}

// A world is a host with one pool and a broker.
type world struct {
	t      *testing.T
	dir    string
	pool   string // the workdir
	truth  string // what the simulated cbsd says that it did
	file   string // configuration
	runDir string
	config map[string]any // what is in file
	client *client.Client
	procs  []*process
	jobs   []judge.Job // what was submitted with submit
	held   int         // calls of hold
}

func newWorld(t *testing.T, broker map[string]any) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.pool, w.truth, w.file = filepath.Join(w.dir, "pool1"), filepath.Join(w.dir, "truth"), filepath.Join(w.dir, "pool1.json")
	w.runDir = filepath.Join(w.dir, "state", "run")
	if err := cbsdsim.Init(w.pool, "e2e.local"); err != nil {
		t.Fatal(err)
	}
	w.simulate(cbsdsim.Config{})
	w.config = map[string]any{
		"cbsdenv": w.pool, "cbsd": program(t, "cbsd"), "logfile": filepath.Join(w.dir, "agent.log"),
		"state_dir": filepath.Join(w.dir, "state"), "workers": 4,
	}
	w.configure(broker)
	t.Cleanup(func() {
		if w.client != nil {
			w.client.Close()
		}
		for _, p := range w.procs {
			p.kill()
		}
		w.killRunner()
		w.killCommands()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(w.dir, "agent.log"))
			truth, _ := os.ReadFile(w.truth)
			t.Logf("agent.log:\n%s\ntruth:\n%s", log, truth)
		}
	})
	return w
}

// configure changes keys of the configuration file.
func (w *world) configure(keys map[string]any) {
	w.t.Helper()
	maps.Copy(w.config, keys)
	text, err := json.Marshal(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.file, text, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// beanstalkd is a configuration's broker: a real one.
func beanstalkd(t *testing.T) map[string]any {
	return beanstalkdAt(testserver.Beanstalkd(t).Addr)
}

func beanstalkdAt(addr string) map[string]any {
	return map[string]any{"broker": "beanstalkd", "beanstalkd": map[string]any{
		"uri": addr, "publish_timeout": 2, "reserve_timeout": 1, "reconnect_timeout": 1,
	}}
}

// embeddedNATS is a configuration's broker: one that the agent runs.
func embeddedNATS(t *testing.T) map[string]any {
	return map[string]any{"broker": "nats", "nats": map[string]any{
		"uri": "embedded", "embedded_listen": testserver.FreeAddr(t), "publish_timeout": 2, "reserve_timeout": 1, "reconnect_timeout": 1,
	}}
}

func (w *world) simulate(c cbsdsim.Config) {
	w.t.Helper()
	c.Journal = w.truth
	if err := c.Write(w.pool); err != nil {
		w.t.Fatal(err)
	}
}

// A process is one of ours.
type process struct {
	cmd    *exec.Cmd
	done   chan struct{}
	stderr bytes.Buffer // to be read when it is done
}

func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

func (p *process) gone() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// start starts cbsdmq, to be killed at point where that is not "".
func (w *world) start(point string, args ...string) *process {
	w.t.Helper()
	p := &process{cmd: exec.Command(program(w.t, "cbsdmq"), args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), failpoint.Variable+"="+point)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	w.t.Cleanup(func() {
		if w.t.Failed() && p.gone() && p.stderr.Len() > 0 {
			w.t.Logf("cbsdmq %s: %s", strings.Join(args, " "), p.stderr.String())
		}
	})
	w.procs = append(w.procs, p)
	return p
}

func (w *world) agent(point string) *process { return w.start(point, "agent", "--config", w.file) }

func (w *world) runner(point string) *process {
	sockets := func() []string {
		found, err := filepath.Glob(filepath.Join(w.runDir, "*.sock"))
		if err != nil {
			w.t.Fatal(err)
		}
		return found
	}
	for _, left := range sockets() { // by one that was killed
		os.Remove(left)
	}
	var p *process
	testserver.Eventually(w.t, patience, func() error { // else the agent starts another one
		switch {
		case p == nil, p.gone() && strings.Contains(p.stderr.String(), runner.ErrInUse.Error()):
			// One that was killed has its lock until its last thread is gone.
			p = w.start(point, "runner", "--dir", w.runDir)
		case p.gone(), len(sockets()) > 0:
			return nil
		}
		return errors.New("the runner does not listen")
	})
	return p
}

// runnerPID is that of the runner, whoever started it; 0 = none runs.
func (w *world) runnerPID() int {
	out, _ := exec.Command("pgrep", "-f", "runner --dir "+w.runDir+"$").Output()
	pid, _ := strconv.Atoi(strings.TrimSpace(strings.Split(string(out), "\n")[0]))
	return pid
}

func (w *world) killRunner() {
	if pid := w.runnerPID(); pid > 0 {
		syscall.Kill(pid, syscall.SIGKILL)
		testserver.Eventually(w.t, patience, func() error {
			if w.runnerPID() == pid {
				return fmt.Errorf("the runner %d does not end", pid)
			}
			return nil
		})
	}
}

// killCommands kills what outlives its runner, until nothing is left that would
// write into the test's directory.
func (w *world) killCommands() {
	w.t.Helper()
	testserver.Eventually(w.t, 20*time.Second, func() error {
		pids, err := proc.FindEnv("workdir", w.pool)
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if err == nil && len(pids) > 0 {
			err = fmt.Errorf("processes of %s are left: %v", w.pool, pids)
		}
		return err
	})
}

// connect opens a session as a client.
func (w *world) connect() *client.Client {
	w.t.Helper()
	if w.client != nil {
		return w.client
	}
	b, s := w.open()
	testserver.Eventually(w.t, 2*patience, func() (err error) {
		ctx, cancel := context.WithTimeout(w.t.Context(), patience/2) // some brokers make a mailbox slowly
		defer cancel()
		w.client, err = client.Open(ctx, client.Options{
			Bus: b, Pool: "pool1", Tube: s.Tube, ReplyPrefix: s.ReplyTubePrefix, AcceptTimeout: -1, // tests say how long they wait
		})
		return err
	})
	return w.client
}

// open opens the pool's broker.
func (w *world) open() (*bus.Bus, config.Section) {
	w.t.Helper()
	cfg, _, err := config.Load(w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	s := cfg.Buses()[0]
	b, closer, err := (&all.Opener{ClientOnly: true}).Open(w.t.Context(), s.Kind, s.Config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { closer.Close() })
	return b, s
}

func job(command string, args ...string) client.Job {
	j := client.Job{Command: command}
	for _, a := range args {
		name, value, ok := strings.Cut(a, "=")
		if !ok {
			j.Words = append(j.Words, a)
			continue
		}
		j.Args = append(j.Args, cbsdmq.Arg{Name: name, Value: value})
	}
	return j
}

func (w *world) submit(j client.Job) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 90*time.Second) // one that has just started may be slow
	defer cancel()
	begun := time.Now()
	id, err := w.connect().Submit(ctx, j)
	if err != nil {
		w.t.Fatalf("submitting %s: %v", j.Command, err)
	}
	sent := judge.Job{
		ID: id, Pool: "pool1", Sender: "submit", Command: j.Command, InOrder: j.InOrder,
		Submits: []judge.Submit{{At: begun, Done: time.Now(), Confirmed: true}},
	}
	for _, a := range j.Args {
		if a.Name == "jname" {
			sent.Guests = []string{a.Value}
		}
		sent.Args = append(sent.Args, a.Name+"="+a.Value)
	}
	sent.Args = append(sent.Args, j.Words...)
	w.jobs = append(w.jobs, sent)
	return id
}

func (w *world) follow(id string) cbsdmq.Reply {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 90*time.Second)
	defer cancel()
	r, err := w.connect().Follow(ctx, id, 0, nil)
	if err != nil {
		w.t.Fatalf("following %s: %v", id, err)
	}
	return r
}

// acts reads the ground truth, by job. A job whose command was begun twice has
// two.
func (w *world) acts() map[string][]judge.Act {
	out := make(map[string][]judge.Act)
	for _, a := range w.history(nil).Acts {
		out[a.Job] = append(out[a.Job], a)
	}
	return out
}

// history is the truth, and what clients were told of the ends of jobs. Jobs
// that were not submitted with submit are taken for what the truth says.
func (w *world) history(ends map[string]cbsdmq.Reply) *judge.History {
	w.t.Helper()
	h := &judge.History{Jobs: slices.Clone(w.jobs)}
	var err error
	if h.Acts, h.Broken, err = judge.ReadTruthFile(w.truth, "pool1"); err != nil {
		w.t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, j := range h.Jobs {
		known[j.ID] = true
	}
	other := func(id string) {
		if !known[id] {
			known[id] = true
			h.Jobs = append(h.Jobs, judge.Job{ID: id, Pool: "pool1", Submits: []judge.Submit{{Confirmed: true}}})
		}
	}
	for _, a := range h.Acts {
		if a.Job != "-" {
			other(a.Job)
			i := slices.IndexFunc(h.Jobs, func(j judge.Job) bool { return j.ID == a.Job })
			h.Jobs[i].Command, h.Jobs[i].Changes = a.Command, true
		}
	}
	for id, r := range ends {
		other(id)
		h.Replies = append(h.Replies, judge.FromReply(r, time.Now()))
	}
	return h
}

// judge compares the ends that clients were told with the truth. All jobs are
// to end done, or unknown where the runner was lost.
func (w *world) judge(ends map[string]cbsdmq.Reply, runnerLost bool) {
	w.t.Helper()
	h := w.history(ends)
	for i, j := range h.Jobs {
		_, told := ends[j.ID]
		s := j.Submits[0]
		s.Confirmed = told // for those of other parts of the test nobody waits
		h.Jobs[i].Submits = []judge.Submit{s}
		h.Jobs[i].Ends = []cbsdmq.State{cbsdmq.Done, cbsdmq.Unknown}
	}
	if runnerLost {
		h.Events = []judge.Event{{Kind: judge.RunnerLost, At: time.Now(), From: time.Unix(0, 0)}}
	}
	if v := judge.Judge(h, judge.Rules{Slack: time.Second, ReadsUnseen: true, Partial: true}); v.Convicted() > 0 {
		var b strings.Builder
		v.Write(&b, 10)
		w.t.Error(b.String())
	}
}
