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
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
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

// A Driver reaches Kafka. It may be used concurrently.
type Driver struct {
	cfg       bus.Config
	addrs     []string // host:port
	tls       *tls.Config
	mechanism []sasl.Mechanism
	dialer    func(ctx context.Context, network, addr string) (net.Conn, error)
}

// New returns a driver for the broker that cfg names. It does not connect.
func New(cfg bus.Config) (*Driver, error) {
	d := &Driver{cfg: cfg, dialer: (&net.Dialer{}).DialContext}
	for part := range strings.SplitSeq(cfg.URI, ",") {
		addr, err := address(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		d.addrs = append(d.addrs, addr)
	}
	if cfg.Replicas < 0 {
		return nil, wrong("replicas", "%d copies", cfg.Replicas).
			WithHint("3 keeps a copy of each message on three brokers; 0 leaves it to the broker")
	}
	for _, t := range []struct{ key, name string }{{"tube", cfg.Tube}, {"reply_tube_prefix", cfg.ReplyTubePrefix}} {
		if ok := t.name == "" || bus.ValidTube(t.name) && (t.key != "tube" || valid(t.name)); !ok {
			return nil, wrong(t.key, "%q is not a name that Kafka takes", t.name).
				WithHint("letters, digits, _ . and -, such as cbsd_pool1; %s is taken", ReplyTopic)
		}
	}
	var err error
	if d.tls, err = tlsconf.Load(cfg); err != nil {
		return nil, cbsdmq.Errorf(cbsdmq.CodeBadConfig, "kafka", "%w", err)
	}
	if d.mechanism, err = d.mechanisms(); err != nil {
		return nil, err
	}
	return d, nil
}

func wrong(key, format string, args ...any) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "kafka."+key, format, args...)
}

// address reads one part of the uri.
func address(s string) (string, error) {
	const hint = "write host:port, such as 127.0.0.1:9092 or [2001:db8::3]:9092; several brokers are separated by commas"
	if s == "" {
		return "", wrong("uri", "an address is missing").WithHint(hint)
	}
	if strings.Contains(s, "/") || strings.Contains(s, "@") {
		return "", wrong("uri", "%q is not host:port", s).
			WithHint("%s; TLS and the login have the keys tls, user and password", hint)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.Trim(s, "[]"), DefaultPort
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", wrong("uri", "%q is not host:port", s).WithHint(hint)
		}
	}
	if _, err := net.LookupPort("tcp", port); err != nil || host == "" {
		return "", wrong("uri", "%q is not host:port", s).WithHint(hint)
	}
	return net.JoinHostPort(host, port), nil
}

// mechanisms are the ways to log in, the best one first. A password is never
// shown in clear to a broker that asks for that, unless the configuration does.
func (d *Driver) mechanisms() ([]sasl.Mechanism, error) {
	user, password := d.cfg.User, d.cfg.Password
	known := []string{"scram-sha-512", "scram-sha-256", "plain"}
	if d.cfg.SASL != "" && !slices.Contains(known, d.cfg.SASL) {
		return nil, wrong("sasl", "%q is not a way to log in", d.cfg.SASL).WithHint("one of %s", strings.Join(known, ", "))
	}
	if user == "" {
		if password != "" || d.cfg.SASL != "" {
			return nil, wrong("user", "missing").WithHint("user and password belong together")
		}
		return nil, nil
	}
	if password == "" {
		return nil, wrong("password", "missing").WithHint("user and password belong together")
	}
	auth := scram.Auth{User: user, Pass: password}
	var ms []sasl.Mechanism
	for i, m := range []sasl.Mechanism{auth.AsSha512Mechanism(), auth.AsSha256Mechanism(), plain.Auth{User: user, Pass: password}.AsMechanism()} {
		if d.cfg.SASL == known[i] || d.cfg.SASL == "" && (i < 2 || d.tls != nil) {
			ms = append(ms, m)
		}
	}
	return ms, nil
}

// Addr names the brokers.
func (d *Driver) Addr() string { return strings.Join(d.addrs, ",") }

// Caps are Kafka's.
func (d *Driver) Caps() bus.Caps {
	return bus.Caps{Name: "kafka", TTL: true, Durable: true, Order: true, MaxBody: maxBody}
}
