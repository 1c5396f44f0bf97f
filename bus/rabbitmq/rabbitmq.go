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
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
)

const (
	// DefaultPort and DefaultTLSPort are added to addresses that name none.
	DefaultPort    = "5672"
	DefaultTLSPort = "5671"

	// MailboxMaxAge is how long a mailbox is kept that nobody uses.
	MailboxMaxAge = 7 * 24 * time.Hour
)

// A Driver reaches RabbitMQ. It may be used concurrently.
type Driver struct {
	cfg       bus.Config
	endpoints []endpoint
}

// endpoint is one node of the broker.
type endpoint struct {
	addr           string // host:port
	tls            bool
	vhost          string
	user, password string
}

// New returns the driver for cfg. The key uri is host:port or
// amqp[s]://[user:password@]host[:port][/vhost]; several nodes of a cluster are
// separated by commas. The error names the key that is wrong.
func New(cfg bus.Config) (*Driver, error) {
	d := &Driver{cfg: cfg}
	for one := range strings.SplitSeq(cfg.URI, ",") {
		e, err := parse(strings.TrimSpace(one), cfg)
		if err != nil {
			return nil, err
		}
		d.endpoints = append(d.endpoints, e)
	}
	for _, k := range []struct {
		name string
		set  bool
	}{{"token", cfg.Token != ""}, {"creds", cfg.Creds != ""}} {
		if k.set {
			return nil, bad(k.name, "RabbitMQ has no such login").WithHint("use the keys user and password")
		}
	}
	return d, nil
}

func bad(key, format string, args ...any) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "rabbitmq."+key, format, args...)
}

func parse(s string, cfg bus.Config) (endpoint, error) {
	fail := func(format string, args ...any) (endpoint, error) {
		return endpoint{}, bad("uri", format, args...).
			WithHint("write it as host:port or amqp://host:port/vhost, for example 127.0.0.1:5672 or amqps://mq.example.org/cbsd")
	}
	switch {
	case s == "":
		return fail("an address is missing")
	case s == "embedded":
		return endpoint{}, bad("uri", "RabbitMQ cannot be embedded").WithHint(`set "broker" to "nats" for the embedded broker`)
	case strings.Count(s, ":") > 1 && net.ParseIP(s) != nil:
		return fail("an IPv6 address needs brackets: [%s]:%s", s, DefaultPort)
	case !strings.Contains(s, "://"):
		s = "amqp://" + s
	}
	u, err := url.Parse(s)
	if err != nil { // it repeats the address, which may hold a password
		return fail("not an address")
	}
	switch {
	case u.Scheme != "amqp" && u.Scheme != "amqps":
		return fail("%s:// is not known, only amqp:// and amqps://", u.Scheme)
	case u.Hostname() == "":
		return fail("the host is missing")
	case u.RawQuery != "" || u.Fragment != "":
		return fail("nothing may follow the vhost")
	}
	e := endpoint{
		tls:   u.Scheme == "amqps" || cfg.TLS || cfg.CA != "" || cfg.Cert != "" || cfg.Key != "",
		vhost: "/", user: cfg.User, password: cfg.Password,
	}
	if v := strings.TrimPrefix(u.Path, "/"); v != "" {
		e.vhost = v
	}
	port := u.Port()
	switch n, err := strconv.ParseUint(port, 10, 16); {
	case port == "" && e.tls:
		port = DefaultTLSPort
	case port == "":
		port = DefaultPort
	case err != nil || n == 0:
		return fail("%q is not a port", port)
	}
	e.addr = net.JoinHostPort(u.Hostname(), port)
	if u.User != nil {
		e.user = u.User.Username()
		e.password, _ = u.User.Password()
	}
	if e.user == "" && e.password == "" {
		e.user, e.password = "guest", "guest" // RabbitMQ's own, good on loopback only
	}
	return e, nil
}

// tlsConfig reads the files anew each time: certificates are renewed.
func (d *Driver) tlsConfig(e endpoint) (*tls.Config, error) {
	if !e.tls {
		return nil, nil
	}
	t, err := tlsconf.Load(d.cfg)
	if err != nil {
		return nil, &bus.Permanent{Err: err}
	}
	if t == nil {
		t = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	t.ServerName, _, _ = net.SplitHostPort(e.addr)
	return t, nil
}

// Addr is the list of nodes, without secrets.
func (d *Driver) Addr() string {
	list := make([]string, len(d.endpoints))
	for i, e := range d.endpoints {
		list[i] = e.addr
		if e.vhost != "/" {
			list[i] += "/" + e.vhost
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

func (e endpoint) login() string { return fmt.Sprintf("user %q", e.user) }
