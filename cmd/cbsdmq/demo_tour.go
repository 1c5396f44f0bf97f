package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/proc"
	"github.com/cbsd/cbsdmq/runner"
)

// demoPools are the pools of the tour.
var demoPools = [...]string{"pool1", "pool2"}

// tour plays every scene on simulated CBSD, and then checks the simulator's own
// record of what was run.
func (s *stage) tour(ctx context.Context) error {
	begun := time.Now()
	if err := s.simulate(ctx); err != nil {
		return err
	}
	for _, scene := range []func(context.Context) error{
		s.createAndStart, s.hostile, s.protected, s.cancelOne, s.crash, s.parallel,
	} {
		if err := scene(ctx); err != nil {
			return err
		}
	}
	return s.summary(ctx, begun)
}

// simulate builds two pools whose cbsd is the simulator.
func (s *stage) simulate(ctx context.Context) error {
	if err := s.startBroker(ctx); err != nil {
		return err
	}
	if err := s.startRunner(); err != nil {
		return err
	}
	slow := func(seconds float64) cbsdsim.Behaviour { return cbsdsim.Behaviour{Delay: seconds} }
	// What is to be seen while a command runs is seen on a slow machine, too.
	until := func(seconds float64, file string) cbsdsim.Behaviour {
		return cbsdsim.Behaviour{Delay: seconds, Until: s.path(file)}
	}
	for _, pool := range demoPools {
		workdir := s.path(pool)
		s.swept = append(s.swept, workdir)
		s.janitor.say("sweep " + workdir)
		behaviour := cbsdsim.Config{
			Journal: s.truth(pool), JournalReads: true,
			Commands: map[string]cbsdsim.Behaviour{
				"bstart vm1": slow(2), "bstop vm1": until(20, "never"), "bcreate vm2": until(4, adopted),
				"jcreate www": until(2, submitted), "jcreate db": until(2, submitted),
				"jcreate mail": until(2, submitted), "jcreate dns": until(2, submitted),
			},
		}
		if err := errors.Join(
			cbsdsim.Init(workdir, pool+".my.domain"),
			behaviour.Write(workdir),
			s.configure(pool, workdir, s.path("bin", "cbsd"), nil),
		); err != nil {
			return err
		}
		if err := s.startAgent(ctx, pool); err != nil {
			return err
		}
	}
	s.say(`Everything runs on this machine, in %s: %s, two pools with simulated CBSD, an agent for each, and
the runner, which starts the commands. These are the pools:`, s.dir, s.broker.tell())
	_, err := s.run(ctx, 0, "pools")
	return err
}

// Files that commands wait for.
const (
	adopted   = "adopted"   // there is a new agent
	submitted = "submitted" // all of the jobs that are to run in parallel are
)

func (s *stage) letGo(file string) error { return os.WriteFile(s.path(file), nil, 0o600) }

// truth is where the simulator of a pool writes down what it was started for.
func (s *stage) truth(pool string) string { return s.path("log", pool+".truth") }

func (s *stage) createAndStart(ctx context.Context) error {
	s.say(`A VM is created. The client puts the job on the pool's queue, the agent writes it
down, runs cbsd and then looks whether the VM is really there: "changed".`)
	if _, err := s.run(ctx, 0, "run", "pool1", "bcreate", "jname=vm1", "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_ram=64m"); err != nil {
		return err
	}
	s.say("It is started. The output comes as cbsd prints it:")
	if _, err := s.run(ctx, 0, "run", "pool1", "bstart", "jname=vm1"); err != nil {
		return err
	}
	s.say("The list of guests is read from CBSD's own files:")
	if _, err := s.run(ctx, 0, "guests"); err != nil {
		return err
	}
	vnc, greeting, err := s.vnc(ctx)
	if err != nil {
		return err
	}
	s.say("The VM's VNC server at %s answers: %s", vnc, greeting)
	return nil
}

// vnc greets the VNC server of vm1.
func (s *stage) vnc(ctx context.Context) (addr, greeting string, err error) {
	out, err := s.ask(ctx, "guests", "-o", "json", "pool1")
	if err != nil {
		return "", "", err
	}
	var guest cbsdmq.Guest
	if err := json.Unmarshal(out, &guest); err != nil {
		return "", "", err
	}
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", guest.VNC)
	if err != nil {
		return "", "", fmt.Errorf("VNC of vm1: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return guest.VNC, strings.TrimSpace(line), err
}

func (s *stage) hostile(ctx context.Context) error {
	owned := s.path("owned")
	s.say(`CBSD evaluates the value of an argument as shell, as root. This would create a
file. It is refused before cbsd is started:`)
	if _, err := s.run(ctx, cbsdmq.ExitRefused, "run", "pool1", "bstart", "jname=$(touch "+owned+")"); err != nil {
		return err
	}
	if _, err := os.Stat(owned); err == nil {
		return fmt.Errorf("%s was created", owned)
	}
	return nil
}

func (s *stage) protected(ctx context.Context) error {
	s.say(`The VM is protected, and then removed: cbsd skips it and says exit status 0. The
agent sees that the VM is still there:`)
	if _, err := s.run(ctx, 0, "run", "pool1", "bset", "jname=vm1", "protected=1"); err != nil {
		return err
	}
	_, err := s.run(ctx, cbsdmq.ExitFailure, "run", "pool1", "bremove", "jname=vm1")
	return err
}

func (s *stage) cancelOne(ctx context.Context) error {
	s.say("A slow stop is submitted, which prints the job's id, and cancelled:")
	id, err := s.run(ctx, 0, "submit", "pool1", "bstop", "jname=vm1")
	if err != nil {
		return err
	}
	if _, err := s.running(ctx, id); err != nil {
		return err
	}
	_, err = s.run(ctx, 0, "cancel", id)
	return err
}

// running waits until a job's command runs, and returns its process.
func (s *stage) running(ctx context.Context, id string) (pid int, err error) {
	err = s.await(ctx, id+" to run", func() (bool, error) {
		j, err := s.job(ctx, id)
		if j.State.Ended() {
			return false, hopeless{fmt.Errorf("%s has ended: %s", id, j.Reason)}
		}
		if err != nil || j.State != cbsdmq.Running { // as the journal has it: its start is on the way
			return false, err
		}
		pids, err := proc.FindEnv(runner.JobVariable, id)
		if err != nil || len(pids) == 0 {
			return false, err
		}
		pid = pids[0]
		return true, nil
	})
	return pid, err
}

// crash kills an agent while a command runs. The next one adopts it.
func (s *stage) crash(ctx context.Context) error {
	s.say("Now the worst case. A VM is created, which takes a while, and when it runs ...")
	id, err := s.run(ctx, 0, "submit", "pool1", "bcreate", "jname=vm2", "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_ram=64m")
	if err != nil {
		return err
	}
	command, err := s.running(ctx, id)
	if err != nil {
		return err
	}
	pid := s.agents["pool1"].Pid
	if err := s.killAgent("pool1"); err != nil {
		return err
	}
	s.say(`... the agent of pool1 is killed: kill -9 %d. The command, process %d, goes on
under the runner. A new agent is started; it finds the job in the journal and the
command at the runner:`, pid, command)
	if err := s.startAgent(ctx, "pool1"); err != nil {
		return err
	}
	if _, err := s.run(ctx, 0, "pools"); err != nil {
		return err
	}
	if err := s.letGo(adopted); err != nil {
		return err
	}
	s.say("The job can be followed as if nothing had happened, from its first byte to its end:")
	_, err = s.run(ctx, 0, "follow", id)
	return err
}

// parallel has jobs for different guests run at the same time, in both pools.
func (s *stage) parallel(ctx context.Context) error {
	s.say("Pools, and guests in a pool, do not wait for each other: four jails of two seconds each.")
	var ids []string
	jails := [][]string{{"www", "db"}, {"mail", "dns"}} // names are unique on a host
	for i, pool := range demoPools {
		for _, jail := range jails[i] {
			id, err := s.run(ctx, 0, "submit", pool, "jcreate", "jname="+jail, "ver=empty")
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
	}
	if err := s.letGo(submitted); err != nil {
		return err
	}
	var first, last time.Time
	var sum time.Duration
	for _, id := range ids {
		if _, err := s.ask(ctx, "follow", id); err != nil {
			return err
		}
		j, err := s.job(ctx, id)
		if err != nil {
			return err
		}
		if first.IsZero() || j.BegunAt.Before(first) {
			first = j.BegunAt
		}
		if j.FinishedAt.After(last) {
			last = j.FinishedAt
		}
		sum += j.FinishedAt.Sub(j.BegunAt)
	}
	if last.Sub(first) >= sum {
		return fmt.Errorf("the four jails were made one after the other: %s in all, %s each on its own", span(last.Sub(first)), span(sum))
	}
	fmt.Fprintf(s.g.stdout, "\n  %s of work, done in %s\n", span(sum), span(last.Sub(first)))
	return nil
}

// summary lists the jobs and compares them with the simulator's record.
func (s *stage) summary(ctx context.Context, begun time.Time) error {
	s.say("These were the jobs, the newest of each pool first:")
	if _, err := s.run(ctx, 0, "jobs"); err != nil {
		return err
	}
	out, err := s.ask(ctx, "jobs", "-o", "json")
	if err != nil {
		return err
	}
	starts, err := s.starts()
	if err != nil {
		return err
	}
	jobs := 0
	for line := range bytes.Lines(out) {
		var j cbsdmq.JobInfo
		if err := json.Unmarshal(line, &j); err != nil {
			return err
		}
		jobs++
		least, most := 1, 1
		switch j.State {
		case cbsdmq.Refused:
			least, most = 0, 0
		case cbsdmq.Cancelled:
			least = 0 // it may be killed before it has written that it began
		}
		switch n := starts[j.ID]; {
		case !j.State.Ended():
			return fmt.Errorf("job %s is %s", j.ID, j.State)
		case n < least || n > most:
			return fmt.Errorf("job %s was begun %d times, not %d", j.ID, n, most)
		}
		delete(starts, j.ID)
	}
	if len(starts) > 0 {
		return fmt.Errorf("begun without a job: %v", starts)
	}
	s.say("demo: %d jobs, each one answered; one agent killed, no job lost, none begun twice. %s",
		jobs, span(time.Since(begun)))
	return nil
}

// starts counts the begins of each job in the simulator's record.
func (s *stage) starts() (map[string]int, error) {
	starts := make(map[string]int)
	for _, pool := range demoPools {
		text, err := os.ReadFile(s.truth(pool))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			// B <unix nanoseconds> <pid> <job> <command> <guest>; what the agent
			// itself asks cbsd has no job.
			if f := strings.Fields(line); len(f) >= 4 && f[0] == "B" && f[3] != "-" {
				starts[f[3]]++
			}
		}
	}
	return starts, nil
}
