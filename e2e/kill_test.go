package e2e

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/failpoint"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// load submits jobs for two guests and some that only read.
func (w *world) load() (ids []string) {
	for i := range 3 {
		for _, guest := range []string{"vm1", "vm2"} {
			ids = append(ids, w.submit(job("bset", "jname="+guest, fmt.Sprintf("tags=n%d", i))))
		}
		ids = append(ids, w.submit(job("bls", "header=0")))
	}
	return ids
}

func (w *world) ends(ids []string) map[string]cbsdmq.Reply {
	w.t.Helper()
	ends := make(map[string]cbsdmq.Reply)
	for _, id := range ids {
		ends[id] = w.follow(id)
	}
	return ends
}

// prepare makes the guests, and then slows their commands down a little, so
// that a crash finds some at work.
func (w *world) prepare() {
	w.t.Helper()
	a := w.agent("")
	for _, guest := range []string{"vm1", "vm2"} {
		id := w.submit(job("bcreate", "jname="+guest, "vm_os_type=linux", "vm_os_profile=lab-tiny", "imgsize=10m", "vm_cpus=1", "vm_ram=64m"))
		if r := w.follow(id); r.State != cbsdmq.Done {
			w.t.Fatalf("bcreate: %+v", r)
		}
	}
	a.kill()
	w.simulate(cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"bset": {Delay: 0.1}}})
}

// TestKillAgent kills the agent at each point of a job's way. The next one must
// bring every job to its end, and none may be begun twice.
func TestKillAgent(t *testing.T) {
	for _, point := range failpoint.Agent {
		for _, n := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s %d", point, n), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, beanstalkd(t))
				w.prepare()
				a := w.agent(fmt.Sprintf("%s:%d", point, n))
				ids := w.load()
				// Points that depend on how jobs come together may be reached less
				// often than n.
				testserver.Eventually(t, 2*patience, func() error {
					if a.gone() || w.allActed(ids) {
						return nil
					}
					return fmt.Errorf("the agent is not killed at %s, and not done", point)
				})
				if n == 1 && !a.gone() {
					testserver.Eventually(t, patience, func() error {
						if !a.gone() {
							return fmt.Errorf("the agent is not killed at %s", point)
						}
						return nil
					})
				}
				a.kill()
				w.agent("")
				w.judge(w.ends(ids), false)
			})
		}
	}
}

// allActed reports whether every changing job was carried out.
func (w *world) allActed(ids []string) bool {
	acts, n := w.acts(), 0
	for _, id := range ids {
		if as := acts[id]; len(as) > 0 && !as[0].End.IsZero() {
			n++
		}
	}
	return n == 6
}

// TestKillRunner kills the runner at each point. Commands that ran then may end
// unknown, but only those.
func TestKillRunner(t *testing.T) {
	for _, point := range failpoint.Runner {
		for _, n := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s %d", point, n), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, beanstalkd(t))
				w.prepare()
				w.killRunner()
				r := w.runner(fmt.Sprintf("%s:%d", point, n))
				w.agent("")
				ids := w.load()
				testserver.Eventually(t, 2*patience, func() error {
					if r.gone() {
						return nil
					}
					return fmt.Errorf("the runner is not killed at %s", point)
				})
				if r.cmd.ProcessState.Exited() { // not killed: another one runs
					t.Errorf("the runner ended by itself: %s", r.stderr.String())
				}
				w.judge(w.ends(ids), true)
			})
		}
	}
}

// TestKillBoth kills agent and runner at moments of fixed seeds, again and
// again.
func TestKillBoth(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			w := newWorld(t, beanstalkd(t))
			w.prepare()
			a := w.agent("")
			ids := w.load()
			for range 3 {
				time.Sleep(time.Duration(rnd.IntN(300)) * time.Millisecond) // the moment is what the seed chooses
				switch rnd.IntN(3) {
				case 0:
					a.kill()
				case 1:
					w.killRunner()
				default:
					syscall.Kill(a.cmd.Process.Pid, syscall.SIGKILL)
					w.killRunner()
					a.kill()
				}
				if a.gone() {
					a = w.agent("")
				}
			}
			w.judge(w.ends(ids), true)
		})
	}
}
