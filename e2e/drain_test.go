package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// The tests of this file start, stop and reload agents as operators do.

// TestTerm ends an agent while a command runs. It does not wait for the command,
// which goes on, and the next agent has the rest.
func TestTerm(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]func(*testing.T) map[string]any{"beanstalkd": beanstalkd, "nats": embeddedNATS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, broker(t))
			w.guest("vm1")
			letGo := w.hold("bset")
			a := w.agent("")
			ids := []string{w.submit(job("bset", "jname=vm1", "tags=a")), w.submit(job("bset", "jname=vm1", "tags=b"))}
			w.begun(1)
			a.signal(syscall.SIGTERM)
			if status := a.ends(t); status != 0 { // the command runs
				t.Errorf("the agent ended with %d", status)
			}
			letGo()
			w.agent("")
			w.judge(w.ends(ids), false)
		})
	}
}

// TestTermWait ends an agent that was told to wait for commands: it begins
// nothing new, and ends when the command has.
func TestTermWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1", "vm2")
	letGo := w.hold("bset")
	a := w.start("", "agent", "--config", w.file, "--wait")
	ids := []string{w.submit(job("bset", "jname=vm1", "tags=a")), w.submit(job("bset", "jname=vm1", "tags=b"))}
	w.begun(1)
	w.accepted(ids[1])
	a.signal(syscall.SIGTERM)
	testserver.Eventually(t, patience, func() error { // a signal comes when it comes
		why, err := w.connect().Why(t.Context(), "", ids[1])
		if err == nil && !strings.Contains(fmt.Sprint(why.Waits), "begins nothing more") {
			err = fmt.Errorf("the agent does not say that it ends: %+v", why.Waits)
		}
		return err
	})
	ids = append(ids, w.submit(job("bset", "jname=vm2", "tags=c")))
	letGo()
	if status := a.ends(t); status != 0 {
		t.Errorf("the agent ended with %d", status)
	}
	if as := w.order("vm1"); len(as) != 1 || as[0].End.IsZero() {
		t.Errorf("when the agent had ended: %+v", as)
	}
	if as := w.order("vm2"); len(as) > 0 {
		t.Errorf("it began something new: %+v", as)
	}
	w.agent("")
	w.judge(w.ends(ids), false)
}

// TestReload changes the configuration under a running agent: a good file counts,
// a bad one does not and is complained about, the log is opened anew, and
// commands run on.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1")
	letGo := w.hold("bset")
	a := w.agent("")
	o := w.original()
	id := o.put(body("bset", "jname=vm1", "tags=a"))
	w.begun(1)
	logfile := filepath.Join(w.dir, "agent.log")
	if err := os.Rename(logfile, logfile+".0"); err != nil {
		t.Fatal(err)
	}
	w.configure(map[string]any{"allow": []string{"bset"}})
	a.signal(syscall.SIGHUP)
	w.logged("serving")
	letGo()
	if r := o.replies(id, 1)[0]; r.State != cbsdmq.Done {
		t.Errorf("the command that ran ended %s: %s", r.State, r.Reason)
	}
	wantRefused(t, o.run(body("bls")), "bls is not allowed in this pool")

	good, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{string(good[:len(good)-1]), strings.Replace(string(good), `"workers":4`, `"workers":-4`, 1)} {
		if err := os.Rename(logfile, logfile+".1"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		a.signal(syscall.SIGHUP)
		w.logged("serving")
		old, err := os.ReadFile(logfile + ".1")
		if said := string(old) + w.log(); err != nil || !strings.Contains(said, "pool1.json:1:") || !strings.Contains(said, "keeping the old one") {
			t.Errorf("nothing says what is bad: %v\n%s", err, said)
		}
		if err := os.WriteFile(w.file, good, 0o600); err != nil {
			t.Fatal(err)
		}
		wantRefused(t, o.run(body("bls")), "bls is not allowed in this pool")
		if r := o.run(body("bset", "jname=vm1", "tags=b")); r.State != cbsdmq.Done {
			t.Errorf("with a bad file a job ended %s: %s", r.State, r.Reason)
		}
	}
	if a.gone() {
		t.Error("the agent is gone")
	}
}

// TestReloadUnusable changes the configuration to what can be read but not be
// served. The agent goes on with the old one.
func TestReloadUnusable(t *testing.T) {
	t.Parallel()
	for key, value := range map[string]string{
		"logfile": "nosuch/agent.log", "cbsdenv": "nosuch", "journal": "nosuch/journal.sqlite", "run_dir": "nosuch",
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, beanstalkd(t))
			if err := os.WriteFile(filepath.Join(w.dir, "nosuch"), nil, 0o600); err != nil { // no directory
				t.Fatal(err)
			}
			good := w.config[key]
			a := w.agent("")
			o := w.original()
			o.good()
			for range 2 {
				before := strings.Count(w.log(), "keeping the old one")
				w.configure(map[string]any{key: filepath.Join(w.dir, value)})
				a.signal(syscall.SIGHUP)
				testserver.Eventually(t, patience, func() error {
					if strings.Count(w.log(), "keeping the old one") == before && !a.gone() {
						return errors.New("it does not say that it keeps the old configuration")
					}
					return nil
				})
				if a.gone() {
					t.Fatalf("the agent is gone: %s", a.stderr.String())
				}
				o.good()
			}
			delete(w.config, key)
			w.configure(map[string]any{"allow": []string{"bset"}})
			if good != nil {
				w.configure(map[string]any{key: good})
			}
			a.signal(syscall.SIGHUP)
			testserver.Eventually(t, patience, func() error {
				if r := o.run(body("bls")); r.State != cbsdmq.Refused {
					return fmt.Errorf("the good file does not count: %s", r.State)
				}
				return nil
			})
		})
	}
}

// TestReloadEmbedded reads the configuration again in the agent that runs the
// broker.
func TestReloadEmbedded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, embeddedNATS(t))
	w.guest("vm1")
	letGo := w.hold("bset")
	a := w.start("", "agent", "--config", w.file, "--wait") // which is for its end only
	ids := []string{w.submit(job("bset", "jname=vm1", "tags=a")), w.submit(job("bset", "jname=vm1", "tags=b"))}
	w.begun(1)
	a.signal(syscall.SIGHUP)
	testserver.Eventually(t, patience, func() error { // while the command runs
		if strings.Count(w.log(), "msg=serving") < 2 {
			return errors.New("the configuration is not read again")
		}
		return nil
	})
	ids = append(ids, w.submit(job("bset", "jname=vm1", "tags=c")))
	letGo()
	w.judge(w.ends(ids), false)
	if a.gone() {
		t.Error("the agent is gone")
	}
}

// TestTermWithoutBroker ends an agent that owes a reply and has no broker to
// put it on. It does not wait; the next one has the reply.
func TestTermWithoutBroker(t *testing.T) {
	t.Parallel()
	for name, broker := range map[string]struct {
		leave, comeBack func(*testserver.Process, *testing.T)
	}{
		"gone": {
			func(p *testserver.Process, t *testing.T) { p.Kill(t) },
			func(p *testserver.Process, t *testing.T) { p.Start(t) },
		},
		"frozen": {
			func(p *testserver.Process, t *testing.T) { p.Stop(t) },
			func(p *testserver.Process, t *testing.T) { p.Cont(t) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testserver.Beanstalkd(t)
			w := newWorld(t, beanstalkdAt(server.Addr))
			w.guest("vm1")
			letGo := w.hold("bset")
			a := w.agent("")
			id := w.original().put(body("bset", "jname=vm1", "tags=a"))
			w.begun(1)
			broker.leave(server, t)
			letGo()
			w.logged("state=done")
			begun := time.Now()
			a.signal(syscall.SIGTERM)
			if status, took := a.ends(t), time.Since(begun); status != 0 || took > 10*time.Second {
				t.Errorf("the agent ended with %d after %v", status, took)
			}
			broker.comeBack(server, t)
			w.agent("")
			if r := w.original().replies(id, 1)[0]; r.State != cbsdmq.Done {
				t.Errorf("ended %s: %s", r.State, r.Reason)
			}
		})
	}
}

// TestSeveralPools serves two pools from one process, one of which is imported
// later.
func TestSeveralPools(t *testing.T) {
	t.Parallel()
	broker := beanstalkd(t)
	w, late := newWorld(t, broker), newWorld(t, broker)
	run := filepath.Join(w.dir, "state")
	late.runDir = w.runDir
	pool2 := filepath.Join(late.dir, "pool2")
	late.configure(map[string]any{"cbsdenv": pool2, "state_dir": run, "logfile": w.config["logfile"]})
	if err := cbsdsim.Init(pool2, "e2e.local"); err != nil {
		t.Fatal(err)
	}
	exported := pool2 + ".exported" // it comes whole, in one step
	if err := os.Rename(pool2, exported); err != nil {
		t.Fatal(err)
	}
	a := w.start("", "agent", "--config", w.file, "--config", late.file)
	w.logged("serving")
	w.original().good()
	w.logged("cannot serve the pool, trying again")
	id := late.original().put(body("bls", "header=0"))
	if err := os.Rename(exported, pool2); err != nil {
		t.Fatal(err)
	}
	if r := late.original().replies(id, 1)[0]; r.State != cbsdmq.Done || r.ID != fmt.Sprintf("pool2/%d", id) {
		t.Errorf("the job of the pool that came late: %+v", r)
	}
	w.original().good()
	if n := strings.Count(w.log(), "cannot serve the pool"); n != 1 || a.gone() {
		t.Errorf("it said %d times that it cannot serve the pool:\n%s", n, w.log())
	}
}

// TestSecondAgent starts an agent for a pool that has one.
func TestSecondAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	first := w.agent("")
	o := w.original()
	o.good()
	second := w.agent("")
	status := second.ends(t)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	holder := fmt.Sprintf("pid %d on %s", first.pid(), host)
	if said := second.stderr.String(); status == 0 || !strings.Contains(said, holder) || !strings.Contains(said, "hint: ") {
		t.Errorf("the second agent ends with %d and says %q, want %q", status, said, holder)
	}
	o.good()
}

// TestRunnerRestarted ends the runner while nothing runs, as its update does,
// and kills it.
func TestRunnerRestarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	w.guest("vm1")
	a := w.agent("")
	o := w.original()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if r := o.run(body("bset", "jname=vm1", "tags=x")); r.State != cbsdmq.Done {
			t.Errorf("ended %s: %s", r.State, r.Reason)
		}
		old := w.runnerPID()
		if err := syscall.Kill(old, sig); err != nil {
			t.Fatal(err)
		}
		testserver.Eventually(t, patience, func() error {
			if now := w.runnerPID(); now == 0 || now == old {
				return errors.New("there is no new runner")
			}
			return nil
		})
		if r := o.run(body("bset", "jname=vm1", "tags=y")); r.State != cbsdmq.Done {
			t.Errorf("with a new runner a job ended %s: %s", r.State, r.Reason)
		}
	}
	if a.gone() {
		t.Error("the agent is gone")
	}
}

// TestRunnerComesLate starts an agent that cannot have a runner. It stays, and
// serves when it can.
func TestRunnerComesLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, beanstalkd(t))
	if err := os.MkdirAll(w.runDir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(w.runDir, "runner-1.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	a := w.agent("")
	w.logged("cannot serve the pool, trying again")
	if strings.Contains(w.log(), "msg=serving") {
		t.Errorf("it says that it serves:\n%s", w.log())
	}
	id := w.original().put(body("bls", "header=0"))
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if r := w.original().replies(id, 1)[0]; r.State != cbsdmq.Done || a.gone() {
		t.Errorf("ended %s: %s", r.State, r.Reason)
	}
}

// TestEmbeddedBrokerKilled has two agents share the broker that one of them
// runs, and kills that one. Nothing is lost, and the other finds it again.
func TestEmbeddedBrokerKilled(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t, embeddedNATS(t)), newWorld(t, nil)
	section := w.config["nats"].(map[string]any)
	section["embedded_dir"] = filepath.Join(w.dir, "nats")
	w.configure(nil)
	shared := make(map[string]any)
	maps.Copy(shared, section)
	shared["tube"] = "cbsd_other"
	other.configure(map[string]any{"broker": "nats", "nats": shared})
	w.guest("vm1")
	other.guest("vm1")
	for _, w := range []*world{w, other} {
		w.slow("bset", 1)
	}
	a := w.agent("")
	w.original().good()
	b := other.agent("")
	other.original().good()
	ids := make(map[*world][]string)
	for _, w := range []*world{w, other} {
		for i := range 3 {
			ids[w] = append(ids[w], w.submit(job("bset", "jname=vm1", fmt.Sprintf("tags=n%d", i))))
		}
		w.begun(1)
	}
	a.kill()
	w.agent("")
	for w, ids := range ids {
		w.judge(w.ends(ids), false)
	}
	if b.gone() {
		t.Error("the other agent is gone")
	}
}
