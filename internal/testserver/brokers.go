package testserver

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A Broker is a kind of broker as tests and benches start it.
type Broker struct {
	Name    string
	Section string // of the configuration
	Same    string // name of the same broker, where this is only another way to run it
	Forgets bool   // a restart loses what it had confirmed, and its numbers begin again
	Slow    bool   // its start takes some seconds
	Java    bool   // it is fast once it has run for a minute, where a Stage is Long

	// ForgetsReplies: those that nobody has read are gone with the agent that is
	// the server; jobs are not.
	ForgetsReplies bool

	// Reorders: what a lost connection had been handed comes back a moment later
	// than the next one is there.
	Reorders bool

	// Direct: agents must connect with nothing in between, since one of them is
	// the server, or becomes it when there is none. Clients need not.
	Direct bool

	// Start starts the servers, more than one for a cluster; it skips the test
	// where they are not installed. nil: the agents bring it, at a free address.
	Start func(t testing.TB, at Place) []*Process

	// Keys are those of its section for who connects to addr, which may be a
	// proxy's, or several with commas: all but the timeouts.
	Keys func(addr string, at Place) map[string]any
}

// A Place is what a broker may need that is not its own.
type Place struct {
	Dir    string // agents and server share it: what the embedded broker keeps
	Cbsdmq string // the program, for a broker that is one of its subcommands

	// Via, if set, is asked by a server that tells who connects where it is to be
	// reached: it returns the address of what stands before listen, for agents and
	// for clients.
	Via func(who Who, listen string) string
}

// Who connects to a broker.
type Who int

// Agents and clients of pools.
const (
	Agents Who = iota
	Clients
)

// Brokers are all there are. A new one is one entry here.
var Brokers = []Broker{
	{
		Name: "beanstalkd", Section: "beanstalkd", Keys: uri(""),
		Start: one(func(t testing.TB) *Process { return Beanstalkd(t, "-f", "50") }),
	},
	{
		Name: "beanstalkd-nobinlog", Section: "beanstalkd", Keys: uri(""), Forgets: true,
		Start: one(func(t testing.TB) *Process { return BeanstalkdWithoutBinlog(t) }),
	},
	{
		Name: "nats", Section: "nats", Keys: uri("nats://"),
		Start: one(func(t testing.TB) *Process { return NATS(t) }),
	},
	{Name: "embedded", Section: "nats", Keys: embedded, Direct: true},
	{
		Name: "embedded-service", Section: "nats", Same: "embedded", Keys: embedded, Direct: true,
		Start: func(t testing.TB, at Place) []*Process {
			addr := FreeAddr(t)
			return []*Process{StartProcess(t, addr, at.Cbsdmq, "broker", "--dir", at.embedded(), "--listen", addr)}
		},
	},
	{
		Name: "nats-cluster", Section: "nats", Keys: uri(""), Slow: true,
		Start: func(t testing.TB, at Place) []*Process { return CbsdmqCluster(t, at.Cbsdmq, nil) },
	},
	{
		Name: "rabbitmq", Section: "rabbitmq", Keys: uri(""), Slow: true,
		Start: one(func(t testing.TB) *Process { return RabbitMQ(t) }),
	},
	{
		Name: "kafka", Section: "kafka", Keys: uri(""), Slow: true, Java: true, Reorders: true,
		Start: func(t testing.TB, at Place) []*Process {
			if at.Via == nil {
				return []*Process{Kafka(t)}
			}
			agents, clients := FreeAddr(t), FreeAddr(t)
			return []*Process{Kafka(t, KafkaVia("AGENTS", agents, at.Via(Agents, agents)), KafkaVia("CLIENTS", clients, at.Via(Clients, clients)))}
		},
	},
	{
		Name: "activemq", Section: "activemq", Keys: uri(""), Slow: true, Java: true,
		Start: one(func(t testing.TB) *Process { return ActiveMQ(t, ActiveMQAsInstalled()) }),
	},
	{
		Name: "artemis", Section: "activemq", Keys: uri(""), Slow: true, Java: true, Reorders: true,
		Start: one(ArtemisAsInstalled),
	},
	{Name: "zeromq", Section: "zeromq", Keys: uri("tcp://"), Direct: true, ForgetsReplies: true},
}

func one(start func(testing.TB) *Process) func(testing.TB, Place) []*Process {
	return func(t testing.TB, _ Place) []*Process {
		t.Helper()
		return []*Process{start(t)}
	}
}

func uri(scheme string) func(string, Place) map[string]any {
	return func(addr string, _ Place) map[string]any { return map[string]any{"uri": scheme + addr} }
}

func embedded(addr string, at Place) map[string]any {
	return map[string]any{"uri": "embedded", "embedded_listen": addr, "embedded_dir": at.embedded()}
}

func (at Place) embedded() string { return filepath.Join(at.Dir, "nats") }

// BrokerNames are the names of all brokers, with commas.
func BrokerNames() string {
	names := make([]string, len(Brokers))
	for i, b := range Brokers {
		names[i] = b.Name
	}
	return strings.Join(names, ", ")
}

// FindBrokers takes names separated by commas.
func FindBrokers(list string) (found []Broker, err error) {
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(Brokers, func(b Broker) bool { return b.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no broker %q, there are %s", name, BrokerNames())
		}
		found = append(found, Brokers[i])
	}
	return found, nil
}

// Run starts the broker for as long as the test lasts. addr is where it is
// reached; without servers an agent will be there.
func (b Broker) Run(t testing.TB, at Place) (addr string, servers []*Process) {
	t.Helper()
	if b.Start == nil {
		return FreeAddr(t), nil
	}
	servers = b.Start(t, at)
	addrs := make([]string, len(servers))
	for i, s := range servers {
		addrs[i] = s.Addr
	}
	return strings.Join(addrs, ","), servers
}
