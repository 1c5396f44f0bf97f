// Package activemq carries a bus.Bus over ActiveMQ, Classic or Artemis, by
// AMQP 1.0.
//
// A tube is a queue of its name, which the broker makes when it is first used.
// Whether it removes one that is empty and unused is the broker's configuration.
//
// A message is durable. It has its id as message-id (a number, as text), the time
// when it was put in the application property "put" (microseconds since 1970),
// its queue as to, and its TTL in the header.
package activemq

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/endpoint"
)

// DefaultPort and DefaultTLSPort are added to addresses that name none.
const (
	DefaultPort    = "5672"
	DefaultTLSPort = "5671"
)

// maxBody is far above what is sent, and far below what brokers take: they have
// no limit unless they are given one.
const maxBody = 8 << 20

var addresses = endpoint.Format{Scheme: "amqp", Port: DefaultPort, SecureScheme: "amqps", SecurePort: DefaultTLSPort}

// A Driver reaches ActiveMQ. It may be used concurrently.
type Driver struct {
	cfg     bus.Config
	servers []endpoint.Server
}

// New returns the driver for cfg. The key uri is host:port or
// amqp[s]://[user:password@]host[:port]; a server and those that stand in for
// it are separated by commas. The error names the key that is wrong.
func New(cfg bus.Config) (*Driver, error) {
	servers, err := addresses.Parse(cfg)
	if i := slices.IndexFunc(servers, func(s endpoint.Server) bool { return strings.HasSuffix(s.Addr, ":61616") }); i >= 0 {
		err = errors.New("61616 is the port of OpenWire, which is another protocol")
	}
	switch {
	case cfg.URI == "embedded":
		return nil, bad("uri", "ActiveMQ cannot be embedded").WithHint(`set "broker" to "nats" for the embedded broker`)
	case err != nil:
		return nil, bad("uri", "%w", err).
			WithHint("write it as host:port of the AMQP connector, for example 127.0.0.1:5672 or amqps://mq.example.org")
	}
	for _, k := range []struct {
		name string
		set  bool
	}{{"token", cfg.Token != ""}, {"creds", cfg.Creds != ""}} {
		if k.set {
			return nil, bad(k.name, "ActiveMQ has no such login").WithHint("use the keys user and password")
		}
	}
	return &Driver{cfg: cfg, servers: servers}, nil
}

func bad(key, format string, args ...any) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "activemq."+key, format, args...)
}

// Addr is the list of servers, without secrets.
func (d *Driver) Addr() string { return endpoint.Addrs(d.servers) }

// Caps are those of both brokers with their default settings.
func (d *Driver) Caps() bus.Caps {
	return bus.Caps{Name: "activemq", TTL: true, Durable: true, Order: true, MaxBody: maxBody}
}

func loginName(user string) string {
	if user == "" {
		return "a login without a name"
	}
	return fmt.Sprintf("user %q", user)
}

// valid reports whether both brokers can have a queue of that name. activemq.
// is their own, and :: stands between an address and a queue.
func valid(name string) bool {
	return bus.ValidTube(name) && !strings.Contains(name, "::") && !strings.HasPrefix(strings.ToLower(name), "activemq.")
}
