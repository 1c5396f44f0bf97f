// Package kafka carries a bus.Bus over Apache Kafka 4.2 or later.
//
// A pool's queue is a topic of its name, of which partition 0 is used, read by
// the share group of the same name: several consumers share the messages, and
// each message is acknowledged for itself. The topic is made by whoever comes
// first and keeps its messages for ever; what every consumer has done with is
// removed by the consumers. One that is there is used as it is.
//
// All mailboxes are in one topic, ReplyTopic. The partition of a mailbox follows
// from its name, and the key of a reply is that name and the reply's id, so that
// a record without a value takes the reply away when it is read. The topic is
// compacted, and forgets what is older than MailboxMaxAge.
//
// A message has its id, a number, as the key, or at the end of it; the header
// "expires" is when its TTL ends (milliseconds since 1970).
package kafka

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/endpoint"
)

const (
	// DefaultPort is added to addresses that name none.
	DefaultPort = "9092"

	// ReplyTopic holds all mailboxes.
	ReplyTopic = "cbsdmq-replies"

	// MailboxMaxAge is how long a reply is kept at most.
	MailboxMaxAge = 7 * 24 * time.Hour

	// maxBody leaves room for what surrounds a body within the 1048588 bytes that
	// a broker takes by default.
	maxBody = 1<<20 - 4<<10
)

// Kafka has one port for whatever it is configured to speak there.
var addresses = endpoint.Format{Scheme: "kafka", Port: DefaultPort, SecureScheme: "kafkas", SecurePort: DefaultPort}

// A Driver reaches Kafka. It may be used concurrently.
type Driver struct {
	cfg     bus.Config
	servers []endpoint.Server
	dialer  func(ctx context.Context, network, addr string) (net.Conn, error)
}

// New returns a driver for the broker that cfg names. It does not connect.
func New(cfg bus.Config) (*Driver, error) {
	servers, err := addresses.Parse(cfg)
	switch {
	case cfg.URI == "embedded":
		return nil, wrong("uri", "Kafka cannot be embedded").WithHint(`set "broker" to "nats" for the embedded broker`)
	case err != nil:
		return nil, wrong("uri", "%w", err).
			WithHint("write it as host:port, for example 127.0.0.1:9092; several brokers are separated by commas, and the key tls is for TLS")
	case cfg.Replicas < 0:
		return nil, wrong("replicas", "%d copies", cfg.Replicas).
			WithHint("3 keeps a copy of each message on three brokers; 0 leaves it to the broker")
	case cfg.Tube != "" && !valid(cfg.Tube):
		return nil, wrong("tube", "%q is not a name that Kafka takes", cfg.Tube).
			WithHint("letters, digits, _ . and -, such as cbsd_pool1; %s is taken", ReplyTopic)
	case cfg.Token != "":
		return nil, wrong("token", "Kafka has no such login").WithHint("use the keys user and password")
	case cfg.Creds != "":
		return nil, wrong("creds", "Kafka has no such login").WithHint("use the keys user and password")
	}
	d := &Driver{cfg: cfg, servers: servers, dialer: (&net.Dialer{}).DialContext}
	for _, s := range servers {
		if _, err := d.mechanisms(s); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func wrong(key, format string, args ...any) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "kafka."+key, format, args...)
}

// mechanisms are the ways to log in, the best one first. A password is never
// shown in clear to a broker that asks for that, unless the configuration does.
func (d *Driver) mechanisms(s endpoint.Server) ([]sasl.Mechanism, error) {
	user, password := s.Login(d.cfg)
	known := []string{"scram-sha-512", "scram-sha-256", "plain"}
	switch {
	case d.cfg.SASL != "" && !slices.Contains(known, d.cfg.SASL):
		return nil, wrong("sasl", "%q is not a way to log in", d.cfg.SASL).WithHint("one of %s", strings.Join(known, ", "))
	case user == "" && (password != "" || d.cfg.SASL != ""):
		return nil, wrong("user", "missing").WithHint("user and password belong together")
	case user == "":
		return nil, nil
	case password == "":
		return nil, wrong("password", "missing").WithHint("user and password belong together")
	}
	auth := scram.Auth{User: user, Pass: password}
	var ms []sasl.Mechanism
	for i, m := range []sasl.Mechanism{auth.AsSha512Mechanism(), auth.AsSha256Mechanism(), plain.Auth{User: user, Pass: password}.AsMechanism()} {
		if d.cfg.SASL == known[i] || d.cfg.SASL == "" && (i < 2 || s.TLS) {
			ms = append(ms, m)
		}
	}
	return ms, nil
}

// Addr names the brokers.
func (d *Driver) Addr() string { return endpoint.Addrs(d.servers) }

// Caps are Kafka's.
func (d *Driver) Caps() bus.Caps {
	return bus.Caps{Name: "kafka", TTL: true, Durable: true, Order: true, MaxBody: maxBody}
}
