package e2e

import (
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// On every broker: the agent is killed while a command runs, then the broker
// while the next agent serves, unless it would forget; nothing is lost or begun
// twice.
func TestEachBroker(t *testing.T) {
	for _, b := range testserver.Brokers {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			at := testserver.Place{Dir: t.TempDir(), Cbsdmq: program(t, "cbsdmq")}
			addr, servers := b.Run(t, at)
			keys := b.Keys(addr, at)
			keys["publish_timeout"], keys["reserve_timeout"], keys["reconnect_timeout"] = 5, 1, 1
			w := newWorld(t, map[string]any{"broker": b.Section, b.Section: keys})
			w.simulate(cbsdsim.Config{Commands: map[string]cbsdsim.Behaviour{"jset": {Delay: 2}}})
			agent := w.agent("")
			ends := make(map[string]cbsdmq.Reply)
			created := w.submit(job("jcreate", "jname=jail1", "ver=empty"))
			ends[created] = w.follow(created)
			slow := w.submit(job("jset", "jname=jail1", "host_hostname=a.example"))
			w.begun(2)
			agent.kill()
			w.agent("")
			waits := w.submit(job("jset", "jname=jail1", "host_hostname=b.example"))
			if !b.Forgets {
				for _, s := range servers {
					s.Kill(t)
					s.Start(t)
				}
			}
			last := w.submit(job("jget", "jname=jail1", "host_hostname"))
			for _, id := range []string{slow, waits, last} {
				ends[id] = w.follow(id)
			}
			w.judge(ends, false)
		})
	}
}
