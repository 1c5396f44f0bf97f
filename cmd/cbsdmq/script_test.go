package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// patience is how long a process is waited for; it ends a test that hangs.
const patience = 60 * time.Second

// onBeanstalkd tells transcripts that start one.
var onBeanstalkd = regexp.MustCompile(`(?m)^(pool \S+|broker start)$`)

// TestScripts runs the transcripts in testdata. Beside testscript's own
// commands they have those of a site.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if onBeanstalkd.Match(text) {
				testserver.RequireBeanstalkd(t) // within the transcript it is too late to skip it
			}
			s := &site{t: t, logs: t.TempDir(), processes: make(map[string]*exec.Cmd), held: make(map[string]string)}
			testscript.Run(t, testscript.Params{
				Files:               []string{file},
				Setup:               s.setup,
				Cmds:                s.commands(),
				RequireExplicitExec: true,
				RequireUniqueNames:  true,
			})
		})
	}
}

// A site is what one transcript plays on: pools with simulated CBSD, their
// broker, agents and runner.
type site struct {
	t         *testing.T
	work      string
	logs      string // of agents and runner, by name
	cbsd      string // the simulator
	broker    *testserver.Process
	processes map[string]*exec.Cmd
	workdirs  []string
	docs      []string // blocks of pages that were run
	packed    bool     // cbsdmq comes to the host as a package
	holds     int
	held      map[string]string // by pool, the file that its commands wait for
}

const etc = "etc" // directory of the pools' files

func (s *site) setup(env *testscript.Env) error {
	s.work = env.WorkDir
	env.Defer(s.close) // before the directory is removed
	env.Setenv("CBSDMQ_POOLS", s.path(etc))
	samples, err := filepath.Abs("../../dist/samples")
	if err != nil {
		return err
	}
	env.Setenv("SAMPLES", samples)
	env.Setenv("DIST", filepath.Dir(samples))
	env.Setenv("PATH0", env.Getenv("PATH"))
	env.Setenv("LOGS", s.logs)
	if s.cbsd, err = exec.LookPath("cbsd"); err != nil {
		return err
	}
	env.Setenv("CBSD", s.cbsd)
	// A process that is being forked keeps the scripts among the transcript's files
	// open, and busy, until it is what it is to be.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	return os.Mkdir(s.path(etc), 0o755)
}

func (s *site) path(elem ...string) string {
	return filepath.Join(append([]string{s.work}, elem...)...)
}

// close ends the runner after the agents, which would start another one, and
// then commands and guests.
func (s *site) close() {
	s.endServices()
	for name := range s.processes {
		if name != "runner" {
			s.end(name)
		}
	}
	if s.processes["runner"] != nil {
		s.end("runner")
	}
	for _, workdir := range s.workdirs {
		if err := sweep("workdir", workdir); err != nil {
			s.t.Error(err)
		}
	}
}

// commands are what a transcript can use:
//
//	pool NAME [nats|zeromq]   make a pool with simulated CBSD and its file etc/NAME.json; its broker is beanstalkd
//	setting POOL KEY JSON     write a key into the pool's file
//	reload POOL               have the agent read it again, by SIGHUP
//	vm POOL NAME              let the pool have a VM
//	agent POOL [PROGRAM]      start the agent, perhaps as an original program, and wait until it serves
//	kill9 POOL                kill the agent
//	broker start|up|down      start or end beanstalkd; start: where there is no pool yet
//	slow POOL COMMAND SECONDS let a command of the pool's cbsd take so long
//	hold POOL COMMAND         let it print how far it is, and then wait for `letgo POOL`
//	letgo POOL                let what is held go on
//	grows POOL COMMAND SECONDS  let the files that it makes take so long to grow
//	half POOL COMMAND         let it stop half way
//	unreachable POOL COMMAND  let no mirror give it a byte
//	zfs POOL                  let the pool be on ZFS
//	deaf POOL COMMAND [SECONDS]  let it print how far it is, wait for SIGTERM, and go on after it; or take so long, in ten
//	                          steps, one of which SIGTERM cuts short
//	status N COMMAND ...      the command must end with exit status N
//	nobody COMMAND ...        run the command without root's rights; it must end with 0
//	secret WORD               nothing that we keep or log may hold WORD; what CBSD keeps is its own
//	free VAR                  a free address, in an environment variable
//	get STATUS PATH           ask the agent at $METRICS until it answers with this status
//	until PATTERN COMMAND ... run the command until its stdout matches; the next lines are about that run
//	enough PATTERN N COMMAND ...  run it with 1, 2, 4 ... in the place of SECONDS until its output matches; its exit status must be N
//	capture VAR               keep the last stdout in an environment variable
//	begin NAME COMMAND ...    start a command; it prints to NAME.stdout and NAME.stderr
//	appears PATTERN FILE      wait until a file has a line
//	interrupt NAME            Ctrl-C for a command that was begun
//	twice NAME COMMAND ...    Ctrl-C and then Ctrl-C again in the time that a job's follower gives for it, which must end with 130;
//	                          where that was too late, COMMAND is begun in its place
//	ends N NAME               wait for its end, which must have exit status N
//	rcconf NAME=VALUE ...     set variables of rc.conf
//	service N NAME ARG ...    run an rc script with stand-ins for rc.subr and daemon(8); its exit status must be N
//	doc PAGE BLOCK            run a block of a page of docs, by the name in its mark; `all`: each one must have been run
//	tune POOL                 point a file that init wrote to the site's cbsd, directories and broker
//	original NAME             let the host have the rc script of an original agent
//	pack VERSION              make the package cbsdmq-VERSION.pkg, for the stand-in of pkg(8)
//	need PROGRAM              where it is missing, say so, and fail where CI=true
//	clean                     no file and no process of a demo may be left
func (s *site) commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	type command = func(ts *testscript.TestScript, args []string) error
	table := map[string]struct {
		args int // at least
		run  command
	}{
		"pool":        {1, s.pool},
		"setting":     {3, s.setting},
		"reload":      {1, s.reload},
		"vm":          {2, s.vm},
		"agent":       {1, s.agent},
		"kill9":       {1, s.kill9},
		"broker":      {1, s.brokerUpDown},
		"slow":        {3, s.slow},
		"hold":        {2, s.hold},
		"letgo":       {1, s.letGo},
		"grows":       {3, s.grows},
		"half":        {2, s.half},
		"unreachable": {2, s.unreachable},
		"zfs":         {1, s.zfs},
		"deaf":        {2, s.deaf},
		"status":      {2, s.status},
		"nobody":      {1, s.nobody},
		"secret":      {1, s.secret},
		"free":        {1, s.free},
		"get":         {2, s.get},
		"until":       {2, s.until},
		"enough":      {3, s.enough},
		"capture":     {1, s.capture},
		"begin":       {2, s.begin},
		"appears":     {2, s.appears},
		"interrupt":   {1, s.interrupt},
		"twice":       {2, s.twice},
		"ends":        {2, s.ends},
		"rcconf":      {1, s.rcConf},
		"service":     {3, s.service},
		"doc":         {2, s.doc},
		"tune":        {1, s.tune},
		"original":    {1, s.original},
		"pack":        {1, s.pack},
		"need":        {1, s.need},
		"clean":       {0, s.clean},
	}
	out := make(map[string]func(ts *testscript.TestScript, neg bool, args []string))
	for name, c := range table {
		out[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) < c.args {
				ts.Fatalf("%s: wrong use", name)
			}
			ts.Check(c.run(ts, args))
		}
	}
	return out
}

func (s *site) pool(ts *testscript.TestScript, args []string) error {
	name := args[0]
	s.workdirs = append(s.workdirs, s.path(name))
	if err := cbsdsim.Init(s.path(name), name+".my.domain"); err != nil {
		return err
	}
	section := map[string]any{"tube": "cbsd_" + name, "reply_tube_prefix": "cbsd_" + name + "_result_id", "reconnect_timeout": 1}
	broker := "beanstalkd"
	switch {
	case len(args) > 1 && args[1] == "zeromq":
		broker = args[1]
		section["uri"] = "tcp://" + testserver.FreeAddr(s.t)
	case len(args) > 1:
		broker = args[1]
		section["uri"], section["embedded_listen"] = "embedded", "127.0.0.1:0"
	default:
		if err := s.startBroker(ts); err != nil {
			return err
		}
		section["uri"] = s.broker.Addr
	}
	text, err := json.MarshalIndent(map[string]any{
		"cbsdenv": s.path(name), "cbsd": s.cbsd, "broker": broker, broker: section,
		"logfile": filepath.Join(s.logs, name+".log"), "state_dir": s.path("state"), "kill_grace": "2s",
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(s.path(etc, name+".json"), text, 0o600)
}

func (s *site) setting(ts *testscript.TestScript, args []string) error {
	file := s.path(etc, args[0]+".json")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c map[string]json.RawMessage
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	c[args[1]] = json.RawMessage(os.Expand(args[2], ts.Getenv))
	if text, err = json.MarshalIndent(c, "", "  "); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// vm creates a VM as an admin does, not as a job.
func (s *site) vm(ts *testscript.TestScript, args []string) error {
	line := []string{"bcreate", "jname=" + args[1], "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_ram=64m"}
	var out bytes.Buffer
	if status := cbsdsim.Main(line, []string{"workdir=" + s.path(args[0]), "NOINTER=1"}, &out, &out); status != 0 {
		return fmt.Errorf("%s: exit status %d: %s", line, status, out.Bytes())
	}
	return nil
}

// start runs the program under one of its names until the transcript ends.
func (s *site) start(name string, stdout, stderr string, command ...string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	cmd := exec.Command(path, command[1:]...)
	cmd.Dir, cmd.Env = s.work, append(os.Environ(), "CBSDMQ_POOLS="+s.path(etc), "TMPDIR="+s.path(".tmp"))
	for file, to := range map[string]*io.Writer{stdout: &cmd.Stdout, stderr: &cmd.Stderr} {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		*to = f
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.processes[name] = cmd
	return nil
}

func (s *site) serve(name string, command ...string) error {
	log := filepath.Join(s.logs, name)
	return s.start(name, log+".stdout", log+".stderr", command...)
}

// end kills what runs; a failed test shows what it said.
func (s *site) end(name string) {
	cmd := s.processes[name]
	delete(s.processes, name)
	cmd.Process.Kill()
	cmd.Wait()
	if s.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(s.logs, name+".*"))
		for _, log := range logs {
			text, _ := os.ReadFile(log)
			s.t.Logf("%s:\n%s", filepath.Base(log), text)
		}
	}
}

func (s *site) agent(ts *testscript.TestScript, args []string) error {
	if s.processes["runner"] == nil {
		if err := s.serve("runner", "cbsdmq", "runner", "--dir", s.path("state", "run")); err != nil {
			return err
		}
	}
	pool, command := args[0], []string{"cbsdmq", "agent"}
	if len(args) > 1 {
		command = args[1:]
	}
	served := s.served(pool)
	if err := s.serve(pool, append(command, "--config", s.path(etc, pool+".json"))...); err != nil {
		return err
	}
	return s.serves(pool, served+1)
}

func (s *site) kill9(_ *testscript.TestScript, args []string) error {
	if s.processes[args[0]] == nil {
		return fmt.Errorf("%s does not run", args[0])
	}
	s.end(args[0])
	return nil
}

// startBroker starts beanstalkd, where that was not done.
func (s *site) startBroker(ts *testscript.TestScript) error {
	if s.broker != nil {
		return nil
	}
	s.broker = testserver.BeanstalkdWithoutBinlog(s.t)
	host, port, err := net.SplitHostPort(s.broker.Addr)
	ts.Setenv("BROKER_HOST", host)
	ts.Setenv("BROKER_PORT", port)
	return err
}

func (s *site) brokerUpDown(ts *testscript.TestScript, args []string) error {
	if args[0] == "start" { // before there is a pool
		return s.startBroker(ts)
	}
	if args[0] == "up" {
		s.broker.Start(s.t)
	} else {
		s.broker.Kill(s.t)
	}
	return nil
}

// simulate has a command of a pool act in another way from now on.
func (s *site) simulate(pool, command string, b cbsdsim.Behaviour) error {
	return cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{command: b}}.Write(s.path(pool))
}

func (s *site) slow(_ *testscript.TestScript, args []string) error {
	seconds, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return err
	}
	return s.simulate(args[0], args[1], cbsdsim.Behaviour{Delay: seconds})
}

func (s *site) grows(_ *testscript.TestScript, args []string) error {
	seconds, err := strconv.ParseFloat(args[2], 64)
	if err != nil {
		return err
	}
	return s.simulate(args[0], args[1], cbsdsim.Behaviour{Grow: seconds})
}

func (s *site) half(_ *testscript.TestScript, args []string) error {
	return s.simulate(args[0], args[1], cbsdsim.Behaviour{Half: true})
}

func (s *site) unreachable(_ *testscript.TestScript, args []string) error {
	return s.simulate(args[0], args[1], cbsdsim.Behaviour{Unreachable: true})
}

func (s *site) zfs(_ *testscript.TestScript, args []string) error {
	return cbsdsim.Config{ZFS: true}.Write(s.path(args[0]))
}

func (s *site) status(ts *testscript.TestScript, args []string) error {
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
		if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return err
		}
	} else if err != nil {
		return err
	}
	ts.Logf("[exit status %d]", got)
	if got != want {
		return fmt.Errorf("exit status %d, want %d", got, want)
	}
	return nil
}

// nobody lets others than root pass through the directories of the test, not read
// what is in them.
func (s *site) nobody(ts *testscript.TestScript, args []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	for _, dir := range []string{s.work, filepath.Dir(path)} {
		for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o711); err != nil {
				return err
			}
		}
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Dir, cmd.Env = s.work, []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	ts.Logf("%s", out)
	return err
}

func (s *site) secret(_ *testscript.TestScript, args []string) error {
	places := []string{s.logs, s.path("state"), s.path(etc)}
	for _, workdir := range s.workdirs {
		places = append(places, filepath.Join(workdir, "var/db/cbsdmq"))
	}
	looked := 0
	for _, place := range places {
		err := filepath.WalkDir(place, func(path string, d fs.DirEntry, err error) error {
			var text []byte
			if err == nil && d.Type().IsRegular() {
				looked++
				text, err = os.ReadFile(path)
			}
			switch {
			case errors.Is(err, fs.ErrNotExist): // the runner has removed it
				return nil
			case err == nil && bytes.Contains(text, []byte(args[0])):
				return fmt.Errorf("%s holds %s", path, args[0])
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	if looked < 5 {
		return fmt.Errorf("%d files in %v", looked, places)
	}
	return nil
}

func (s *site) free(ts *testscript.TestScript, args []string) error {
	ts.Setenv(args[0], testserver.FreeAddr(s.t))
	return nil
}

func (s *site) get(ts *testscript.TestScript, args []string) error {
	deadline := time.Now().Add(patience)
	for {
		resp, err := http.Get("http://" + ts.Getenv("METRICS") + args[1])
		status, text := 0, []byte(nil)
		if err == nil {
			status = resp.StatusCode
			text, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if fmt.Sprint(status) == args[0] {
			return ts.Exec("printf", "%s", string(text))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %d %s %v", args[1], status, text, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *site) capture(ts *testscript.TestScript, args []string) error {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
	return nil
}

func (s *site) begin(_ *testscript.TestScript, args []string) error {
	return s.start(args[0], s.path(args[0]+".stdout"), s.path(args[0]+".stderr"), args[1:]...)
}

func (s *site) interrupt(_ *testscript.TestScript, args []string) error {
	return s.processes[args[0]].Process.Signal(os.Interrupt)
}

func (s *site) ends(_ *testscript.TestScript, args []string) error {
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	cmd := s.processes[args[1]]
	delete(s.processes, args[1])
	hangs := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer hangs.Stop()
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != want {
		return fmt.Errorf("%s ended with %v, want exit status %d", args[1], cmd.ProcessState, want)
	}
	return nil
}

func (s *site) need(ts *testscript.TestScript, args []string) error {
	_, err := exec.LookPath(args[0])
	if err != nil && os.Getenv("CI") != "true" {
		s.t.Logf("%s is not installed: what needs it is not tried", args[0])
		return nil
	}
	return err
}

func (s *site) clean(ts *testscript.TestScript, _ []string) error {
	tmp := ts.Getenv("TMPDIR")
	if err := s.await(regexp.MustCompile(`^$`), []string{"ls", "-A", tmp}); err != nil {
		return fmt.Errorf("left in %s: %w", tmp, err)
	}
	return s.await(regexp.MustCompile(`^none\n$`), []string{"sh", "-c", `ps -A -ww -o args | grep -v grep | grep "$1" || echo none`, "sh", tmp + "/cbsdmq-demo-"})
}
