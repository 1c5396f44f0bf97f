// Package rabbitmq carries a bus.Bus over RabbitMQ 3.8 or later, by AMQP 0-9-1.
//
// A tube is a queue of its name on the default exchange. A pool's queues are
// durable and made by whoever comes first: classic, or quorum where the key
// replicas asks for more than one copy. One that is there is used as it is. A
// mailbox is a queue that the broker removes when nobody has used it for
// MailboxMaxAge, and its reader when it is empty and read to the end.
//
// A message is persistent, has its id as message_id (a number), the time when it
// was put in the header "put" (microseconds since 1970), and its TTL as
// expiration.
package rabbitmq

import (
	"cmp"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/endpoint"
)

const (
	// DefaultPort and DefaultTLSPort are added to addresses that name none.
	DefaultPort    = "5672"
	DefaultTLSPort = "5671"

	// MailboxMaxAge is how long a mailbox is kept that nobody uses.
	MailboxMaxAge = 7 * 24 * time.Hour
)

var addresses = endpoint.Format{
	Scheme: "amqp", Port: DefaultPort, SecureScheme: "amqps", SecurePort: DefaultTLSPort, Path: true,
}

// A Driver reaches RabbitMQ. It may be used concurrently.
type Driver struct {
	cfg   bus.Config
	nodes []endpoint.Server
}

// New returns the driver for cfg. The key uri is host:port or
// amqp[s]://[user:password@]host[:port][/vhost]; several nodes of a cluster are
// separated by commas. The error names the key that is wrong.
func New(cfg bus.Config) (*Driver, error) {
	nodes, err := addresses.Parse(cfg)
	switch {
	case cfg.URI == "embedded":
		return nil, bad("uri", "RabbitMQ cannot be embedded").WithHint(`set "broker" to "nats" for the embedded broker`)
	case err != nil:
		return nil, bad("uri", "%w", err).
			WithHint("write it as host:port or amqp://host:port/vhost, for example 127.0.0.1:5672 or amqps://mq.example.org/cbsd")
	}
	for _, k := range []struct {
		name string
		set  bool
	}{{"token", cfg.Token != ""}, {"creds", cfg.Creds != ""}} {
		if k.set {
			return nil, bad(k.name, "RabbitMQ has no such login").WithHint("use the keys user and password")
		}
	}
	return &Driver{cfg: cfg, nodes: nodes}, nil
}

func bad(key, format string, args ...any) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "rabbitmq."+key, format, args...)
}

// Addr is the list of nodes, without secrets.
func (d *Driver) Addr() string {
	list := make([]string, len(d.nodes))
	for i, n := range d.nodes {
		list[i] = n.Addr
		if v := vhost(n); v != "/" {
			list[i] += "/" + v
		}
	}
	return strings.Join(list, ",")
}

// Caps are those of a broker with its default settings. RabbitMQ drops a
// message past its TTL when it has come to the head of its queue.
func (d *Driver) Caps() bus.Caps {
	return bus.Caps{Name: "rabbitmq", TTL: true, Durable: true, Order: true, MaxBody: maxBody}
}

// maxBody is below what every version takes by default (16 MiB since 4.0), and
// far above what is sent.
const maxBody = 8 << 20

func vhost(n endpoint.Server) string { return cmp.Or(n.Path, "/") }

// login is the user and password for n: where none is named RabbitMQ's own,
// which is good on loopback only.
func (d *Driver) login(n endpoint.Server) (user, password string) {
	user, password = n.Login(d.cfg)
	if user == "" && password == "" {
		return "guest", "guest"
	}
	return user, password
}
