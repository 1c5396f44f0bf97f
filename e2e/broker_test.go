package e2e

import (
	"testing"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/cbsd/cbsdsim"
	"github.com/cbsd/cbsdmq/internal/testserver"
)

// brokers are those that a pool can be moved to by changing its file, each with
// the process that a test may kill.
var brokers = map[string]func(*testing.T) (map[string]any, *testserver.Process){
	"beanstalkd": func(t *testing.T) (map[string]any, *testserver.Process) {
		p := testserver.Beanstalkd(t)
		return beanstalkdAt(p.Addr), p
	},
	"nats": func(t *testing.T) (map[string]any, *testserver.Process) {
		p := testserver.NATS(t)
		return section("nats", "nats://"+p.Addr), p
	},
	"activemq": func(t *testing.T) (map[string]any, *testserver.Process) {
		p := testserver.ActiveMQ(t)
		return section("activemq", p.Addr), p
	},
	"artemis": func(t *testing.T) (map[string]any, *testserver.Process) {
		p := testserver.Artemis(t)
		return section("activemq", p.Addr), p
	},
	"rabbitmq": func(t *testing.T) (map[string]any, *testserver.Process) {
		p := testserver.RabbitMQ(t)
		return section("rabbitmq", p.Addr), p
	},
}

func section(kind, uri string) map[string]any {
	return map[string]any{"broker": kind, kind: map[string]any{
		"uri": uri, "publish_timeout": 5, "reserve_timeout": 1, "reconnect_timeout": 1,
	}}
}

// On every broker: the agent is killed while a command runs, then the broker
// while the next agent serves; nothing is lost or begun twice.
func TestEachBroker(t *testing.T) {
	for name, start := range brokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker, server := start(t)
			w := newWorld(t, broker)
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
			server.Kill(t)
			server.Start(t)
			last := w.submit(job("jget", "jname=jail1", "host_hostname"))
			for _, id := range []string{slow, waits, last} {
				ends[id] = w.follow(id)
			}
			w.judge(ends, false)
		})
	}
}
