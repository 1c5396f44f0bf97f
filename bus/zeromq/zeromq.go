// Package zeromq carries a bus.Bus over ZeroMQ, which has no server: the agent
// is the server. It binds the address of the key uri, as a ROUTER socket does,
// and clients connect, as DEALER sockets do. Any libzmq can talk to it; docs/WIRE.md
// has the words.
//
// The journal is the queue. A message for a Queue is handed to the agent that
// consumes it, and confirmed to its sender when the agent has acknowledged it,
// which it does when the message is in the journal. Until then it is its
// sender's: it is gone when the sender has. A message for a Mailbox is confirmed
// when it is in the agent's memory, where it stays until it is read, or too old,
// or there are too many. It is in the journal as well.
//
// ZMTP 3.1 and CURVE are written here: the only library in Go alone has neither
// contexts nor CURVE nor bounds on what it reads, and does not recover.
package zeromq

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

// DefaultPort is added to an address that names none.
const DefaultPort = "5555"

// maxBody is far above what is sent.
const maxBody = 1 << 20

// A Driver connects to the agent, or serves within its process. It may be used
// concurrently.
type Driver struct {
	cfg    bus.Config
	host   string // "" = all addresses of this host
	port   string
	server key   // from curve_server
	seat   *seat // nil: always a client
}

// New returns the driver of a client for cfg. The key uri is
// [tcp://]host[:port]; with the host * an agent listens on all addresses, and
// clients look for it on their own host. The error names the key that is wrong.
func New(cfg bus.Config) (*Driver, error) {
	d := &Driver{cfg: cfg}
	if err := d.parse(cfg.URI); err != nil {
		return nil, err
	}
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"user", cfg.User != ""}, {"password", cfg.Password != ""}, {"token", cfg.Token != ""}, {"creds", cfg.Creds != ""},
		{"tls", cfg.TLS}, {"ca", cfg.CA != ""}, {"cert", cfg.Cert != ""}, {"key", cfg.Key != ""},
	} {
		if k.set {
			return nil, bad(k.name, "ZeroMQ has neither logins nor TLS").WithHint("use CURVE: the keys curve_key, curve_server and curve_clients")
		}
	}
	if cfg.CurveServer != "" {
		var err error
		if d.server, err = parseKey(cfg.CurveServer); err != nil {
			return nil, bad("curve_server", "%w", err).WithHint("it is the agent's public key, as `cbsdmq curve-key` prints it")
		}
	}
	if cfg.CurveKey == "" {
		switch {
		case cfg.CurveServer != "" || cfg.CurveClients != "":
			return nil, bad("curve_key", "missing").WithHint("make one with `cbsdmq curve-key FILE`, and name the file")
		case !d.loopback():
			return nil, bad("uri", "%s is not an address of this host alone: everybody who reaches it could run commands as root", d.Addr()).
				WithHint("make keys with `cbsdmq curve-key FILE` and set curve_key, or use 127.0.0.1")
		}
	}
	return d, nil
}

func bad(name, format string, args ...any) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "zeromq."+name, format, args...)
}

func (d *Driver) parse(s string) error {
	fail := func(format string, args ...any) error {
		return bad("uri", format, args...).WithHint("write it as tcp://host:port, for example tcp://127.0.0.1:%s", DefaultPort)
	}
	switch {
	case s == "":
		return fail("an address is missing")
	case s == "embedded":
		return fail("the agent is the server of ZeroMQ, always; it needs an address")
	case strings.Contains(s, ","):
		return fail("one address only: an agent is at one place")
	case strings.Count(s, ":") > 1 && net.ParseIP(s) != nil:
		return fail("an IPv6 address needs brackets: [%s]:%s", s, DefaultPort)
	case !strings.Contains(s, "://"):
		s = "tcp://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.User != nil:
		return fail("not an address") // it may hold a password
	case u.Scheme != "tcp":
		return fail("%s:// is not known, only tcp://", u.Scheme)
	case u.Hostname() == "":
		return fail("the host is missing")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return fail("nothing may follow the port")
	}
	d.host, d.port = u.Hostname(), u.Port()
	if d.port == "" {
		d.port = DefaultPort
	}
	if n, err := strconv.ParseUint(d.port, 10, 16); err != nil || n == 0 {
		return fail("%q is not a port", d.port)
	}
	if ip, err := netip.ParseAddr(d.host); d.host == "*" || err == nil && ip.IsUnspecified() {
		d.host = ""
	}
	return nil
}

func (d *Driver) loopback() bool {
	ip, err := netip.ParseAddr(d.host)
	return d.host == "localhost" || err == nil && ip.IsLoopback()
}

// Addr is where the agent listens.
func (d *Driver) Addr() string {
	host := d.host
	if host == "" {
		host = "*"
	}
	return "tcp://" + net.JoinHostPort(host, d.port)
}

// Caps are those of a bus that keeps in memory what is confirmed of a Mailbox;
// of a Queue, the agent has it in its journal.
func (d *Driver) Caps() bus.Caps {
	return bus.Caps{Name: "zeromq", TTL: true, Order: true, MaxBody: maxBody, Brokerless: true}
}
