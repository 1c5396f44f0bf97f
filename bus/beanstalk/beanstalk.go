// Package beanstalk is the bus on beanstalkd (protocol.txt of version 1.12;
// nothing newer than version 1.4.2 is used).
//
// It speaks the protocol itself. The usual library waits for the reply of each
// command before it sends the next one, which costs half of the rate and more,
// and has no deadlines: a call to a frozen server never returns. Here a Put or
// a Receive of many messages is one write and one pass over the replies, and
// nothing outlives its context.
//
// Sharp edges of beanstalkd that are dealt with here:
//
//   - A job belongs to the connection that reserved it. Each consumer has one.
//   - Nothing sent behind a waiting reserve is read until that returns.
//   - A reserved job goes back after the time to run that its sender chose, the
//     publish_timeout in our case. An agent acknowledges within milliseconds.
//     Version 1.12 now and then forgets it until the connection that holds it
//     says something or ends.
//   - With a binlog, a job of the two largest sizes that it accepts is not
//     readable after a restart, and neither is anything that follows it in that
//     file (1.12). Such jobs are refused as too large.
//   - Ids are unique only until it restarts.
package beanstalk

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/cbsd/cbsdmq"
	"github.com/cbsd/cbsdmq/bus"
)

const (
	defaultPort    = "11300"
	defaultTimeout = 5 * time.Second
	defaultMaxJob  = 65535
)

// A Driver reaches one beanstalkd.
type Driver struct {
	addr    string
	reserve time.Duration // longest wait of one reserve
	answer  time.Duration // longest silence while an answer is due
	ttr     time.Duration // time to run of our jobs
}

// New makes a driver from a configuration's section. An error has the code
// bad_config and names the key.
func New(cfg bus.Config) (*Driver, error) {
	addr, err := parseAddr(cfg.URI)
	if err != nil {
		return nil, err
	}
	for _, k := range []struct {
		key string
		set bool
	}{
		{"user", cfg.User != ""}, {"password", cfg.Password != ""}, {"token", cfg.Token != ""}, {"creds", cfg.Creds != ""},
		{"tls", cfg.TLS}, {"ca", cfg.CA != ""}, {"cert", cfg.Cert != ""}, {"key", cfg.Key != ""},
	} {
		if k.set {
			return nil, bad(k.key, "beanstalkd has neither passwords nor TLS").
				WithHint("remove the key and let beanstalkd listen on 127.0.0.1, or on an address behind WireGuard or stunnel")
		}
	}
	for _, n := range []struct {
		key, name string
		room      int // for what is added to it
	}{
		{"tube", cfg.Tube, len("_ctl")},
		{"reply_tube_prefix", cfg.ReplyTubePrefix, len(bus.ControlMailbox("", strings.Repeat("0", 26)))},
	} {
		if n.name != "" && (!validTube(n.name) || len(n.name)+n.room > 200) {
			return nil, bad(n.key, "%q cannot be the name of a tube", n.name).
				WithHint("use at most %d letters, digits and . _ -, beginning with a letter", 200-n.room)
		}
	}
	d := &Driver{addr: addr}
	for _, s := range []struct {
		key  string
		from bus.Seconds
		to   *time.Duration
	}{
		{"reserve_timeout", cfg.ReserveTimeout, &d.reserve},
		{"publish_timeout", cfg.PublishTimeout, &d.answer},
	} {
		switch {
		case s.from == 0:
			*s.to = defaultTimeout
		case s.from > 0 && s.from <= 86400:
			*s.to = time.Duration(float64(s.from) * float64(time.Second))
		default:
			return nil, bad(s.key, "%v is not a number of seconds from 0 to 86400", s.from)
		}
	}
	d.ttr = max(d.answer, time.Second)
	return d, nil
}

func bad(key, format string, args ...any) *cbsdmq.Error {
	return cbsdmq.Errorf(cbsdmq.CodeBadConfig, "beanstalkd."+key, format, args...)
}

// parseAddr takes a name, an IPv4 or an IPv6 address, with or without a port.
func parseAddr(uri string) (string, error) {
	fail := func(format string, args ...any) (string, error) {
		return "", bad("uri", format, args...).
			WithHint("write it as host:port, for example 127.0.0.1:11300 or [2001:db8::3]:11300")
	}
	switch {
	case uri == "":
		return fail("it is empty")
	case uri == "embedded":
		return "", bad("uri", "beanstalkd cannot be embedded").WithHint(`set "broker" to "nats" for the embedded broker`)
	case strings.Contains(uri, "://"):
		return fail("%q is a URL", uri)
	}
	host, port := uri, defaultPort
	if strings.HasPrefix(uri, "[") && strings.HasSuffix(uri, "]") {
		host = uri[1 : len(uri)-1]
	}
	if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ":") {
		if host, port, err = net.SplitHostPort(uri); err != nil {
			return fail("%q is not an address", uri)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fail("%q is not a port", port)
	}
	if !validHost(host) {
		return fail("%q is not the name of a host", host)
	}
	return net.JoinHostPort(host, port), nil
}

// validHost takes an address, with a zone where it has one, or a name.
func validHost(host string) bool {
	addr, zone, zoned := strings.Cut(host, "%")
	if _, err := netip.ParseAddr(addr); err == nil {
		return !zoned || validName(zone)
	}
	return validName(host)
}

func validName(name string) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return name != ""
}

// validTube is stricter than bus.ValidTube: beanstalkd has no colon, and no
// hyphen in front.
func validTube(name string) bool {
	return bus.ValidTube(name) && !strings.Contains(name, ":") && name[0] != '-'
}

// Addr is host:port.
func (d *Driver) Addr() string { return d.addr }

// Caps are those of a beanstalkd with a binlog; see Inspect for the one that
// is there.
func (d *Driver) Caps() bus.Caps {
	return bus.Caps{Name: "beanstalkd", Durable: true, Order: true, MaxBody: defaultMaxJob}
}

// Dial connects and makes sure that a beanstalkd answers.
func (d *Driver) Dial(ctx context.Context) (bus.Conn, error) {
	w, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	return newConn(d, w), nil
}
