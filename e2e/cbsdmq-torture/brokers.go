package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq/internal/testserver"
)

// A broker is a kind of broker that can be tortured.
type broker struct {
	name    string
	section string // of the configuration
	forgets bool   // it loses everything when it is restarted
	// start starts the server; nil: the agents bring it.
	start func(s *stage, dir string, p programs) *testserver.Process
	// keys are those of its section beside the common ones, for who connects to
	// addr.
	keys func(addr, dir string) map[string]any
	// direct: what connects does not go through a proxy.
	direct bool
}

// brokers are all that there are. A new one is one entry here.
var brokers = []broker{
	{
		name: "beanstalkd", section: "beanstalkd",
		start: func(s *stage, dir string, _ programs) *testserver.Process {
			return testserver.Beanstalkd(s, "-f", "50")
		},
		keys: uri,
	},
	{
		name: "beanstalkd-nobinlog", section: "beanstalkd", forgets: true,
		start: func(s *stage, dir string, _ programs) *testserver.Process {
			return testserver.BeanstalkdWithoutBinlog(s)
		},
		keys: uri,
	},
	{
		name: "nats", section: "nats",
		start: func(s *stage, dir string, _ programs) *testserver.Process { return testserver.NATS(s) },
		keys:  func(addr, _ string) map[string]any { return map[string]any{"uri": "nats://" + addr} },
	},
	{
		name: "embedded", section: "nats", direct: true,
		keys: embedded,
	},
	{
		name: "embedded-service", section: "nats", direct: true,
		start: func(s *stage, dir string, p programs) *testserver.Process {
			addr := testserver.FreeAddr(s)
			return testserver.StartProcess(s, addr, p.cbsdmq, "broker", "--dir", embeddedDir(dir), "--listen", addr)
		},
		keys: embedded,
	},
}

func uri(addr, _ string) map[string]any { return map[string]any{"uri": addr} }

func embedded(addr, dir string) map[string]any {
	return map[string]any{"uri": "embedded", "embedded_listen": addr, "embedded_dir": embeddedDir(dir)}
}

func embeddedDir(dir string) string { return filepath.Join(dir, "nats") }

// findBrokers takes a list of names with commas.
func findBrokers(list string) (found []broker, err error) {
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(brokers, func(b broker) bool { return b.name == name })
		if i < 0 {
			var names []string
			for _, b := range brokers {
				names = append(names, b.name)
			}
			return nil, fmt.Errorf("there is no broker %q, there are %s", name, strings.Join(names, ", "))
		}
		found = append(found, brokers[i])
	}
	return found, nil
}

// config is the section of who connects to addr.
func (b broker) config(addr, dir string) map[string]any {
	keys := map[string]any{"publish_timeout": 2, "reserve_timeout": 1, "reconnect_timeout": 1}
	maps.Copy(keys, b.keys(addr, dir))
	return keys
}
