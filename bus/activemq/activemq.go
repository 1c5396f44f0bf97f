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
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
	"github.com/cbsd/cbsdmq/bus/internal/tlsconf"
)

// DefaultPort and DefaultTLSPort are added to addresses that name none.
const (
	DefaultPort    = "5672"
	DefaultTLSPort = "5671"
)

// maxBody is far above what is sent, and far below what brokers take: they have
// no limit unless they are given one.
const maxBody = 8 << 20

// A Driver reaches ActiveMQ. It may be used concurrently.
type Driver struct {
	cfg       bus.Config
	endpoints []endpoint
}

// endpoint is one server of the broker.
type endpoint struct {
	addr           string // host:port
	tls            bool
	user, password string
}

// New returns the driver for cfg. The key uri is host:port or
// amqp[s]://[user:password@]host[:port]; a server and those that stand in for
// it are separated by commas. The error names the key that is wrong.
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
			return nil, bad(k.name, "ActiveMQ has no such login").WithHint("use the keys user and password")
		}
	}
	return d, nil
}

func bad(key, format string, args ...any) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "activemq."+key, format, args...)
}

func parse(s string, cfg bus.Config) (endpoint, error) {
	fail := func(format string, args ...any) (endpoint, error) {
		return endpoint{}, bad("uri", format, args...).
			WithHint("write it as host:port of the AMQP connector, for example 127.0.0.1:5672 or amqps://mq.example.org")
	}
	switch {
	case s == "":
		return fail("an address is missing")
	case s == "embedded":
		return endpoint{}, bad("uri", "ActiveMQ cannot be embedded").WithHint(`set "broker" to "nats" for the embedded broker`)
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
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return fail("nothing may follow the port")
	}
	e := endpoint{
		tls:  u.Scheme == "amqps" || cfg.TLS || cfg.CA != "" || cfg.Cert != "" || cfg.Key != "",
		user: cfg.User, password: cfg.Password,
	}
	port := u.Port()
	switch n, err := strconv.ParseUint(port, 10, 16); {
	case port == "" && e.tls:
		port = DefaultTLSPort
	case port == "":
		port = DefaultPort
	case err != nil || n == 0:
		return fail("%q is not a port", port)
	case port == "61616":
		return fail("61616 is the port of OpenWire, which is another protocol")
	}
	e.addr = net.JoinHostPort(u.Hostname(), port)
	if u.User != nil {
		e.user = u.User.Username()
		e.password, _ = u.User.Password()
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

// Addr is the list of servers, without secrets.
func (d *Driver) Addr() string {
	list := make([]string, len(d.endpoints))
	for i, e := range d.endpoints {
		list[i] = e.addr
	}
	return strings.Join(list, ",")
}

// Caps are those of both brokers with their default settings.
func (d *Driver) Caps() bus.Caps {
	return bus.Caps{Name: "activemq", TTL: true, Durable: true, Order: true, MaxBody: maxBody}
}

func (e endpoint) login() string {
	if e.user == "" {
		return "a login without a name"
	}
	return fmt.Sprintf("user %q", e.user)
}

// valid reports whether both brokers can have a queue of that name. activemq.
// is their own, and :: stands between an address and a queue.
func valid(name string) bool {
	return bus.ValidTube(name) && !strings.Contains(name, "::") && !strings.HasPrefix(strings.ToLower(name), "activemq.")
}
